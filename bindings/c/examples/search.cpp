// Search an index by a text:  search BUNDLE INDEX "a spill on the floor" [K]
// Prints a line for each entry found: its cosine, its key, its metadata.
#include <cstdio>
#include <exception>
#include <string>

#include "clipedge/clipedge.hpp"

int main(int count, char** arguments) {
    if (count != 4 && count != 5) {
        std::fprintf(stderr, "usage: %s BUNDLE INDEX TEXT [K]\n", arguments[0]);
        return 2;
    }
    try {
        const clipedge::Model model(arguments[1]);
        const clipedge::Index index(model, arguments[2]);
        const std::string text = arguments[3];
        const std::vector<float> query = model.encode_texts(text);
        for (const clipedge::Hit& hit : index.search(query, count == 5 ? std::stoul(arguments[4]) : 10)) {
            std::printf("%.4f %s %s\n", static_cast<double>(hit.score), index.key(hit.row).c_str(),
                        index.metadata(hit.row).c_str());
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
