// What the processor can do for products of bytes.
#pragma once

#include <string>
#include <vector>

namespace omni2 {

// The vector and int8 instructions that the processor has and the system lets programs use, by their names in Linux's
// /proc/cpuinfo: avx2, avx512f, avx_vnni, avx512_vnni, amx_int8 on x86, asimddp and i8mm on 64-bit ARM.
std::vector<std::string> processor_instructions();

}  // namespace omni2
