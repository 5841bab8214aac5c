// The first byte decides: a tokenizer.json, or a text for a tokenizer of the smallest vocabulary there is.
#include "tokenizer.hpp"

#include "target.hpp"
#include "utf8.hpp"

namespace {

constexpr std::size_t context_length = 16;

// Of CLIP's kind, with the 512 tokens that every vocabulary has and one merge.
std::string smallest_tokenizer() {
    std::string vocabulary;
    char32_t others = 256;
    for (char32_t byte = 0; byte < 256; ++byte) {
        const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        std::string name = byte == U'"' || byte == U'\\' ? "\\" : "";
        clipedge::append_utf8(name, itself ? byte : others++);
        vocabulary += clipedge::joined('"', name, "\":", static_cast<int>(byte), ",\"", name, "</w>\":",
                                       static_cast<int>(byte) + 256, ',');
    }
    return R"({"version":"1.0","truncation":{"direction":"Right","max_length":16,"strategy":"LongestFirst",)"
           R"("stride":0},)"
           R"("padding":{"strategy":{"Fixed":16},"direction":"Right","pad_id":514,"pad_type_id":0,"pad_token":"E"},)"
           R"("added_tokens":[{"id":514,"content":"<|e|>","single_word":false,"lstrip":false,"rstrip":false,)"
           R"("normalized":true,"special":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},)"
           R"({"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "},{"type":"Lowercase"}]},)"
           R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)"
           R"("<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"},)"
           R"("behavior":"Removed","invert":true},{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]},)"
           R"("post_processor":{"type":"RobertaProcessing","sep":["E",514],"cls":["S",513]},"decoder":null,)"
           R"("model":{"type":"BPE","end_of_word_suffix":"</w>","merges":[["a","b"]],"vocab":{)" +
           vocabulary + R"("ab":512}}})";
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return refused_or_parsed(data, size, [](std::string_view bytes) {
        if (bytes.empty() || bytes.front() != 't') {
            clipedge::Tokenizer(bytes, "fuzz", context_length);
            return;
        }
        static const clipedge::Tokenizer tokenizer(smallest_tokenizer(), "smallest", context_length);
        tokenizer(bytes.substr(1));
    });
}
