#include "bank.hpp"

#include <cmath>
#include <set>

#include "errors.hpp"
#include "fields.hpp"
#include "files.hpp"
#include "safetensors.hpp"

namespace clipedge {

namespace {

constexpr double unit_tolerance = 1e-3;
constexpr double least_temperature = 1e-2;
constexpr double most_temperature = 1e2;
constexpr double most_floor = 1e6;

// Labels and negatives have to differ, and to be more than white space.
void check_labels(const std::vector<std::string>& labels, std::set<std::string>& seen, const Field& field) {
    for (const std::string& label : labels) {
        if (label.find_first_not_of(" \t\n\r\f\v") == std::string::npos || !seen.insert(label).second) {
            field.unexpected("texts that are not empty and differ");
        }
    }
}

std::vector<float> unit_rows(const Safetensors& file, const std::string& key, std::size_t count, const Field& labels) {
    const Tensor& tensor = file.tensor(key, "F32", 2);
    if (count == 0 || tensor.shape[0] != static_cast<std::int64_t>(count)) {
        labels.unexpected(joined(tensor.shape[0], " texts, one for each row of ", key));
    }
    std::vector<float> rows = floats_of(tensor);
    const auto dim = static_cast<std::size_t>(tensor.shape[1]);
    for (std::size_t row = 0; row < count; ++row) {
        double sum = 0;
        for (std::size_t i = row * dim; i < (row + 1) * dim; ++i) sum += static_cast<double>(rows[i]) * rows[i];
        // `!(<=)`, so that NaN fails
        if (!(std::abs(std::sqrt(sum) - 1) <= unit_tolerance)) labels.unexpected(key + " of length 1");
    }
    return rows;
}

DecisionRule decision_rule(const Field& field, std::size_t labels) {
    DecisionRule rule;
    rule.temperature = field["temperature"].number();
    if (!(rule.temperature >= least_temperature && rule.temperature <= most_temperature)) {
        field["temperature"].unexpected("a number from 0.01 to 100");
    }
    for (const Field& threshold : field["thresholds"].items()) {
        rule.thresholds.push_back(threshold.number());
        if (!(rule.thresholds.back() >= 0 && rule.thresholds.back() <= 1)) threshold.unexpected("a probability");
    }
    if (!rule.thresholds.empty() && rule.thresholds.size() != labels) {
        field["thresholds"].unexpected(joined("none or ", labels));
    }
    rule.multi_label = field["multi_label"].boolean();
    rule.variant = field["variant"].text();
    if (field.has("floor") && !field["floor"].is_null()) {
        rule.floor = field["floor"].number();
        if (!(std::abs(*rule.floor) <= most_floor)) field["floor"].unexpected("a logit or null");
    }
    return rule;
}

}  // namespace

Bank parse_bank(std::string_view bytes, const std::string& name) {
    const Safetensors file = parse_safetensors(bytes, name);
    const auto text = file.metadata.find("clipedge");
    if (text == file.metadata.end()) fail(CLIPEDGE_BUNDLE, name, " is no prompt bank of clipedge: name one that is");
    const Json document = parse_json(text->second, name);
    const Field header{&document, name + ":"};
    header["format"].choice({"clipedge-prompt-bank"});
    header["version"].integer(1, 1);
    Bank bank;
    bank.labels = header["labels"].texts();
    header["templates"].texts();
    std::set<std::string> seen;
    check_labels(bank.labels, seen, header["labels"]);
    bank.label_embeds = unit_rows(file, "label_embeds", bank.labels.size(), header["labels"]);
    bank.dim = bank.label_embeds.size() / bank.labels.size();
    if (header.has("negatives") || file.tensors.count("negative_embeds") != 0) {
        const std::vector<std::string> negatives = header["negatives"].texts();
        check_labels(negatives, seen, header["negatives"]);
        bank.negatives = negatives.size();
        bank.negative_embeds = unit_rows(file, "negative_embeds", negatives.size(), header["negatives"]);
        if (bank.negative_embeds.size() != bank.negatives * bank.dim) {
            header["negatives"].unexpected("embeddings as wide as those of the labels");
        }
    }
    bank.logit_scale = header["logit_scale"].number();
    bank.logit_bias = header["logit_bias"].number();
    bank.sigmoid = header["activation"].choice({"softmax", "sigmoid"}) == "sigmoid";
    bank.space_id = header["space_id"].text();
    if (header.has("decision")) bank.rule = decision_rule(header["decision"], bank.labels.size());
    return bank;
}

Bank load_bank(const std::string& path) {
    if (!is_file(path)) {
        fail(CLIPEDGE_USAGE, "there is no prompt bank at ", path, "; `clipedge export --labels` writes one");
    }
    const MappedFile file(path);
    return parse_bank(file.bytes(), path);
}

}  // namespace clipedge
