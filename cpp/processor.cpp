#include "processor.h"

#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#define OMNI2_X86
#ifdef _MSC_VER
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace omni2 {
namespace {

#ifdef OMNI2_X86

struct Registers {
    uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r{0, 0, 0, 0};
#ifdef _MSC_VER
    int values[4];
    __cpuid(values, 0);
    if (leaf > static_cast<uint32_t>(values[0])) return r;
    __cpuidex(values, static_cast<int>(leaf), static_cast<int>(subleaf));
    r = {static_cast<uint32_t>(values[0]), static_cast<uint32_t>(values[1]), static_cast<uint32_t>(values[2]),
         static_cast<uint32_t>(values[3])};
#else
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // leaves zeros where there is no such leaf
#endif
    return r;
}

// The registers that the system saves for programs (XCR0).
uint64_t saved_registers() {
    if ((cpuid(1, 0).ecx >> 27 & 1) == 0) return 0;  // the system uses no XSAVE
#ifdef _MSC_VER
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return uint64_t{high} << 32 | low;
#endif
}

#endif

}  // namespace

std::vector<std::string> processor_instructions() {
    std::vector<std::string> found;
    [[maybe_unused]] const auto add = [&found](bool has, const char* name) {
        if (has) found.emplace_back(name);
    };
#ifdef OMNI2_X86
    constexpr uint64_t kAvx = 0x6, kAvx512 = 0xE6, kAmx = 0x60000;
    const uint64_t saved = saved_registers();
    const bool avx = (saved & kAvx) == kAvx, avx512 = (saved & kAvx512) == kAvx512, amx = (saved & kAmx) == kAmx;
    const Registers first = cpuid(7, 0);
    const Registers second = first.eax >= 1 ? cpuid(7, 1) : Registers{0, 0, 0, 0};  // eax: the last subleaf
    add(avx && (first.ebx >> 5 & 1), "avx2");
    add(avx512 && (first.ebx >> 16 & 1), "avx512f");
    add(avx && (second.eax >> 4 & 1), "avx_vnni");
    add(avx512 && (first.ecx >> 11 & 1), "avx512_vnni");
    add(amx && (first.edx >> 25 & 1), "amx_int8");
#elif defined(__aarch64__) && defined(__linux__)
    constexpr unsigned long kDotProducts = 1ul << 20, kMatrixProducts = 1ul << 13;  // HWCAP_ASIMDDP, HWCAP2_I8MM
    add(getauxval(AT_HWCAP) & kDotProducts, "asimddp");
    add(getauxval(AT_HWCAP2) & kMatrixProducts, "i8mm");
#elif defined(__aarch64__) && defined(__APPLE__)
    const auto has = [](const char* name) {
        int value = 0;
        size_t size = sizeof value;
        return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
    };
    add(has("hw.optional.arm.FEAT_DotProd"), "asimddp");
    add(has("hw.optional.arm.FEAT_I8MM"), "i8mm");
#endif
    return found;
}

}  // namespace omni2
