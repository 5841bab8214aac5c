#include "cpu.hpp"

#include <fstream>

namespace clipedge {

std::string processor() {
#if defined(__x86_64__) || defined(_M_X64)
    return "x86";
#elif defined(__aarch64__) || defined(_M_ARM64)
    return "arm";
#else
    return "";
#endif
}

bool products_saturate() {
    if (processor() != "x86") return false;
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        // Where it cannot be told: no VNNI, which is slow but right.
        if (line.find("avx512_vnni") != std::string::npos || line.find("avx_vnni") != std::string::npos) return false;
    }
    return true;
}

}  // namespace clipedge
