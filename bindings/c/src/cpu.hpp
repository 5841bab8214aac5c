// What the processor can do, as far as it decides how INT8 has to be computed (clipedge/backends/cpu.py).
#pragma once

#include <string>

namespace clipedge {

// The target that variants for this processor have: "x86", "arm", or "" for another one.
std::string processor();

// Whether u8 x s8 instructions add pairs of products in 16 bits, which overflow: x86 without VNNI.
bool products_saturate();

}  // namespace clipedge
