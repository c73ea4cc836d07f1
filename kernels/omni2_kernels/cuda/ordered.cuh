// Scores as integers in the same order, so that the greatest of a block or of a whole row is found with integer maxima, and
// the k-th greatest by counting digits.
#pragma once

#include "device.cuh"
#include "elementary.cuh"

namespace omni2 {

constexpr uint32_t kNotANumber = 0;
constexpr uint32_t kMinusInfinity = 0x007FFFFFu;

// NaN ranks below minus infinity; both zeros are one value, as in any comparison of floats.
__device__ inline uint32_t ordered(float score) {
    const uint32_t bits = bits_of(score + 0.0f);  // -0 becomes 0
    if (score != score) return kNotANumber;
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ inline float score_of(uint32_t key) {
    return float_of((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
}

// Key and id in one word, of which the greatest is the greatest key with the lowest id. 0 stands for none.
__device__ inline uint64_t packed(uint32_t key, uint32_t id) {
    return key == kNotANumber ? 0 : static_cast<uint64_t>(key) << 32 | (0xFFFFFFFFu - id);
}

__device__ inline uint32_t key_of(uint64_t pair) { return static_cast<uint32_t>(pair >> 32); }

__device__ inline int32_t id_of(uint64_t pair) {
    return pair == 0 ? -1 : static_cast<int32_t>(0xFFFFFFFFu - static_cast<uint32_t>(pair));
}

__device__ inline uint64_t greatest_in_warp(uint64_t pair) {
    const uint32_t high = __reduce_max_sync(kWholeWarp, key_of(pair));
    const uint32_t low = __reduce_max_sync(kWholeWarp, key_of(pair) == high ? static_cast<uint32_t>(pair) : 0u);
    return static_cast<uint64_t>(high) << 32 | low;
}

// Greatest pair of the block, in the threads of its first warp. `warps` is shared.
__device__ inline uint64_t greatest_in_block(uint64_t pair, uint64_t (&warps)[kWarps]) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    pair = greatest_in_warp(pair);
    if (lane == 0) warps[warp] = pair;
    __syncthreads();
    return warp == 0 ? greatest_in_warp(lane < kWarps ? warps[lane] : 0) : 0;
}

}  // namespace omni2
