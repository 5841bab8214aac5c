// The artefact on disk: a folder with clipedge.json in it. A path is handed out once its bytes matched their hash.
#pragma once

#include <string>

#include "manifest.hpp"

namespace clipedge {

struct Bundle {
    std::string folder;
    Manifest manifest;

    // The path of one file, once it is inside the folder, there, and unaltered. Raises Error (CLIPEDGE_BUNDLE).
    std::string checked(const FileEntry& entry) const;
    // The path of a variant's graph; files of weights beside it are checked with it.
    std::string checked_variant(const Variant& variant) const;
    // The path of one of the manifest's further files, by name.
    std::string checked_file(const std::string& name) const;
    // Where the prompt bank called `name` lies. Raises Error (CLIPEDGE_USAGE) for a name that is none, or not there.
    std::string bank_path(const std::string& name) const;
};

// Raises Error: CLIPEDGE_USAGE for a wrong path, CLIPEDGE_BUNDLE for a bad manifest.
Bundle open_bundle(const std::string& folder);

// The variant called `name`, or, where it is empty, the best one that was made for what runs it, else for any device:
// on a processor the smallest precision; on a GPU float16 goes before int8, which is often no faster there. Raises
// Error: CLIPEDGE_BUNDLE if the bundle lacks the tower, CLIPEDGE_USAGE if there is no such variant.
const Variant& choose_variant(const Bundle& bundle, const std::string& tower, const std::string& name, bool on_gpu);

}  // namespace clipedge
