// What is done to a text before it is cut into words: the normalizer of a tokenizer.json.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fields.hpp"

namespace clipedge {

class TextRules {
public:
    // Those of transformers' and of OpenCLIP's CLIP (export/checkpoints). Raises Error: CLIPEDGE_UNSUPPORTED for other
    // rules, CLIPEDGE_BUNDLE for what are none.
    explicit TextRules(const Field& normalizer);

    std::u32string operator()(std::u32string_view text) const;

private:
    using Rule = std::u32string (*)(std::u32string_view);
    std::vector<Rule> rules_;
};

}  // namespace clipedge
