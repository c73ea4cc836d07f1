// Values in memory as float32, float16 or bfloat16. Conversions are written out, so that hosts and GPUs agree and no header of
// CUDA is needed; they round to nearest, ties to even, as numpy does.
#pragma once

#include "decoding.cuh"
#include "device.cuh"
#include "elementary.cuh"

namespace omni2 {

__device__ inline float from_float16(uint16_t half) {
    const uint32_t sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, mantissa = half & 1023u;
    if (exponent == 31) return float_of(sign | 0x7F800000u | mantissa << 13);
    if (exponent == 0) return float_of(sign | bits_of(static_cast<float>(mantissa) * 0x1p-24f));
    return float_of(sign | (exponent + 112u) << 23 | mantissa << 13);
}

__device__ inline uint16_t to_float16(float value) {
    const uint32_t sign = bits_of(value) >> 16 & 0x8000u, size = bits_of(value) & 0x7FFFFFFFu;
    uint32_t half;
    if (size > 0x7F800000u)
        half = 0x7E00u;  // NaN
    else if (size >= 0x477FF000u)
        half = 0x7C00u;  // 65520 and beyond round to infinity
    else if (size < 0x38800000u)
        half = static_cast<uint32_t>(rintf(float_of(size) * 0x1p24f));  // multiples of 2^-24, the least normal at most
    else
        half = ((size + 0xFFFu + (size >> 13 & 1u)) >> 13) - (112u << 10);
    return static_cast<uint16_t>(sign | half);
}

__device__ inline float from_bfloat16(uint16_t upper) { return float_of(static_cast<uint32_t>(upper) << 16); }

__device__ inline uint16_t to_bfloat16(float value) {
    const uint32_t bits = bits_of(value);
    if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40u);
    return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

__device__ inline float element(const void* values, int32_t type, size_t index) {
    if (type == kFloat32) return static_cast<const float*>(values)[index];
    const uint16_t half = static_cast<const uint16_t*>(values)[index];
    return type == kFloat16 ? from_float16(half) : from_bfloat16(half);
}

__device__ inline void set_element(void* values, int32_t type, size_t index, float value) {
    if (type == kFloat32)
        static_cast<float*>(values)[index] = value;
    else
        static_cast<uint16_t*>(values)[index] = type == kFloat16 ? to_float16(value) : to_bfloat16(value);
}

// Element `column` of row `id` of a table; NaN where it has no such row, which a caller's mistake must not hide.
__device__ inline float table_element(const void* table, int32_t type, int32_t rows, int32_t width, int32_t id,
                                      int32_t column) {
    if (id < 0 || id >= rows) return float_of(kNanBits);
    return element(table, type, static_cast<size_t>(id) * width + column);
}

}  // namespace omni2
