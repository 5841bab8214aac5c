#include "bundle.hpp"

#include <array>
#include <filesystem>
#include <system_error>

#include "cpu.hpp"
#include "errors.hpp"
#include "files.hpp"
#include "sha256.hpp"

namespace clipedge {

namespace fs = std::filesystem;

namespace {

constexpr char manifest_name[] = "clipedge.json";
constexpr std::size_t max_manifest_bytes = 4 * 1024 * 1024;

bool lies_in(const fs::path& path, const fs::path& folder) {
    std::error_code error;
    const fs::path real = fs::weakly_canonical(path, error);
    const fs::path root = error ? fs::path() : fs::weakly_canonical(folder, error);
    if (error) return false;
    const fs::path relative = real.lexically_relative(root);
    return !relative.empty() && *relative.begin() != "..";
}

}  // namespace

std::string Bundle::checked(const FileEntry& entry) const {
    const std::string path = (fs::path(folder) / entry.path).string();
    if (!lies_in(path, folder)) {
        fail(CLIPEDGE_BUNDLE, path,
             " is a link that leaves the bundle's folder; only files inside it are read. Copy the bundle with its "
             "files (cp -rL)");
    }
    if (!is_file(path)) {
        fail(CLIPEDGE_BUNDLE, path, " is missing: the bundle is incomplete; copy the whole folder again");
    }
    const std::string found = sha256_of_file(path);
    if (found != entry.sha256) {
        fail(CLIPEDGE_BUNDLE, path, " is not the file that was exported (expected SHA-256 ",
             entry.sha256.substr(0, 12), "..., found ", found.substr(0, 12), "...): copy or export the bundle again");
    }
    return path;
}

std::string Bundle::checked_variant(const Variant& variant) const {
    std::string graph;
    for (const FileEntry& entry : variant.files) {
        const std::string path = checked(entry);
        if (graph.empty()) graph = path;
    }
    return graph;
}

std::string Bundle::checked_file(const std::string& name) const {
    for (const FileEntry& entry : manifest.files) {
        if (entry.path == name) return checked(entry);
    }
    fail(CLIPEDGE_BUNDLE, folder, " has no ", name, "; it was exported without it: export again");
}

std::string Bundle::bank_path(const std::string& name) const {
    const std::string path = (fs::path(folder) / "prompts" / (name + ".safetensors")).string();
    if (name.empty() || name.find('/') != std::string::npos || !is_file(path)) {
        fail(CLIPEDGE_USAGE, folder, " has no prompt bank \"", name, "\" (a file ", path,
             "); `clipedge prompts` makes one");
    }
    return path;
}

Bundle open_bundle(const std::string& folder) {
    std::error_code error;
    const std::string path = (fs::path(folder) / manifest_name).string();
    if (!fs::exists(folder, error)) {
        fail(CLIPEDGE_USAGE, "there is no bundle at ", folder,
             ": the path does not exist; `clipedge export` makes one");
    }
    if (!is_file(path)) {
        fail(CLIPEDGE_USAGE, folder, " is not a bundle: it has no ", manifest_name, "; `clipedge export` makes one");
    }
    return {folder, parse_manifest(read_file(path, max_manifest_bytes))};
}

const Variant& choose_variant(const Bundle& bundle, const std::string& tower, const std::string& name, bool on_gpu) {
    using Order = std::array<const char*, 4>;
    const Order order = on_gpu ? Order{"fp16", "int8", "fp32", "fp8"} : Order{"int8", "fp32", "fp16", "fp8"};
    const std::string device = on_gpu ? "tensorrt" : processor();
    std::string there;
    const Variant* chosen = nullptr;
    for (const char* precision : order) {
        for (const bool for_any : {false, true}) {
            for (const Variant& variant : bundle.manifest.variants) {
                if (variant.tower != tower || variant.precision != precision || (variant.target == "any") != for_any) {
                    continue;
                }
                there += (there.empty() ? "" : ", ") + variant.name();
                const bool fits = name.empty() ? for_any || variant.target == device : variant.name() == name;
                if (fits && !chosen) chosen = &variant;
            }
        }
    }
    if (there.empty()) {
        fail(CLIPEDGE_BUNDLE, bundle.folder, " has no ", tower,
             " tower; export it again with one, or use a prompt bank");
    }
    if (!chosen) {
        fail(CLIPEDGE_USAGE, bundle.folder, " has no ", tower, " tower ",
             name.empty() ? "for this device" : '"' + name + '"', "; there are: ", there,
             "; name one of them, or export for this one");
    }
    return *chosen;
}

}  // namespace clipedge
