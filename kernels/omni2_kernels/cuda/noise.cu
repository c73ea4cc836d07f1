// Arrays of random numbers where the model needs them, the very bits of `_core.normal` and `_core.uniform` (cpp/random.cpp):
// the vocoder's source wants more of them for a second of sound than all its other inputs together.
//
// 4 bytes a number, written once: 108,000 for half a second of nine sines are 0.43 MB, 0.5 us at 864 GB/s.
#include "device.cuh"
#include "draw.cuh"

namespace omni2 {
namespace {

// Writes what of a block's four numbers the array has room for.
__device__ inline void put(float* out, uint64_t count, uint64_t first, const float (&numbers)[4]) {
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i)
        if (first + i < count) out[first + i] = numbers[i];
}

__device__ inline uint32_t philox_block() { return blockIdx.x * kThreads + threadIdx.x; }

}  // namespace

// Grid: count / (4 kThreads) rounded up, for both.
extern "C" __global__ void __launch_bounds__(kThreads) fill_normal(float* out, uint64_t count, DrawKey key) {
    const uint32_t block = philox_block();
    const Words words = draw_words(key, block);
    const NormalPair left = normal_pair(words.x0, words.x1), right = normal_pair(words.x2, words.x3);
    put(out, count, uint64_t{4} * block, {left.first, left.second, right.first, right.second});
}

// Uniform between `low` and low + `scale`.
extern "C" __global__ void __launch_bounds__(kThreads)
    fill_uniform(float* out, uint64_t count, DrawKey key, float scale, float low) {
    const uint32_t block = philox_block();
    const Words words = draw_words(key, block);
    put(out, count, uint64_t{4} * block,
        {unit_uniform(words.x0) * scale + low, unit_uniform(words.x1) * scale + low, unit_uniform(words.x2) * scale + low,
         unit_uniform(words.x3) * scale + low});
}

}  // namespace omni2
