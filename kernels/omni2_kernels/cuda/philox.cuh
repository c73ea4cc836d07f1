// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011):
// a 128-bit counter and a 64-bit key go in, four random words come out, and nothing is kept in between.
// Plain integer arithmetic, so the same header serves the host and, through NVRTC, CUDA kernels.
#pragma once

#include "portable.cuh"

namespace omni2 {

struct Words {
    uint32_t x0, x1, x2, x3;
};

struct PhiloxKey {
    uint32_t k0, k1;
};

constexpr int kPhiloxRounds = 10;
constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;  // golden ratio
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;  // sqrt(3) - 1

OMNI2_HOST_DEVICE inline Words philox4x32(Words counter, PhiloxKey key) {
    uint32_t x0 = counter.x0, x1 = counter.x1, x2 = counter.x2, x3 = counter.x3;
    uint32_t k0 = key.k0, k1 = key.k1;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 10  // only a flat body lets the caller's loop over counters be vectorised
#endif
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const uint64_t product0 = static_cast<uint64_t>(kPhiloxMultiplier0) * x0;
        const uint64_t product1 = static_cast<uint64_t>(kPhiloxMultiplier1) * x2;
        x0 = static_cast<uint32_t>(product1 >> 32) ^ x1 ^ k0;
        x1 = static_cast<uint32_t>(product1);
        x2 = static_cast<uint32_t>(product0 >> 32) ^ x3 ^ k1;
        x3 = static_cast<uint32_t>(product0);
        k0 += kPhiloxWeyl0;
        k1 += kPhiloxWeyl1;
    }
    return {x0, x1, x2, x3};
}

}  // namespace omni2
