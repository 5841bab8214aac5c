// Runs a fuzz target without libFuzzer:  fuzz_PARSER RUNS FOLDER
// The folder's files one by one, then mutations of them, the same in every run.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "target.hpp"

namespace {

std::vector<std::string> read_seeds(const char* folder) {
    std::vector<std::filesystem::path> paths;
    for (const auto& file : std::filesystem::directory_iterator(folder)) paths.push_back(file.path());
    std::sort(paths.begin(), paths.end());
    std::vector<std::string> seeds;
    for (const auto& path : paths) {
        std::ifstream file(path, std::ios::binary);
        seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return seeds;
}

// Changes some bytes, cuts, repeats a part, or puts a number of extreme size where one stood.
void mutate(std::string& bytes, std::mt19937& random) {
    const auto below = [&random](std::size_t limit) { return random() % std::max<std::size_t>(limit, 1); };
    const std::size_t place = below(bytes.size());
    switch (random() % 6) {
        case 0: bytes.resize(place); break;
        case 1: bytes.insert(place, bytes.substr(below(bytes.size()), below(64))); break;
        case 2: bytes.erase(place, below(16)); break;
        case 3: {
            const char* const extremes[] = {"-1",    "0",    "18446744073709551616", "9223372036854775807",
                                            "1e999", "null", "[]",                   "{}"};
            const std::size_t digit = bytes.find_first_of("0123456789", place);
            if (digit != std::string::npos) bytes.replace(digit, 1, extremes[random() % std::size(extremes)]);
            break;
        }
        default:
            for (std::size_t i = 1 + below(4); i > 0 && !bytes.empty(); --i) {
                bytes[below(bytes.size())] = static_cast<char>(random());
            }
    }
}

int run(const std::string& bytes) {
    return LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) {
        std::fprintf(stderr, "usage: %s RUNS FOLDER\n", arguments[0]);
        return 2;
    }
    const std::vector<std::string> seeds = read_seeds(arguments[2]);
    for (const std::string& seed : seeds) run(seed);
    std::mt19937 random(1);
    for (long runs = std::atol(arguments[1]); runs > 0 && !seeds.empty(); --runs) {
        std::string bytes = seeds[random() % seeds.size()];
        for (auto times = 1 + random() % 4; times > 0; --times) mutate(bytes, random);
        run(bytes);
    }
    return 0;
}
