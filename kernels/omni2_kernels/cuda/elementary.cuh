// Logarithm and exponential in single precision, written out as additions and multiplications so that every host and every
// GPU agrees to the last bit; a system's own mathematics library promises no such thing.
// Must be compiled without contraction to fused multiply-adds (-ffp-contract=off, --fmad=false) and without fast math.
// The polynomials are minimax fits of our own; measured relative errors stay below 2e-7.
#pragma once

#include "portable.cuh"

namespace omni2 {

OMNI2_HOST_DEVICE inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

OMNI2_HOST_DEVICE inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

constexpr float kLn2High = 0.693145751953125f;  // 17 bits of ln 2: its product with an exponent is exact
constexpr float kLn2Low = 1.42860677e-6f;

// log(1 + f) for f in [sqrt(1/2) - 1, sqrt(2) - 1].
OMNI2_HOST_DEVICE inline float log_one_plus(float f) {
    float p = 0.06746595f;
    p = p * f - 0.116756015f;
    p = p * f + 0.1188816f;
    p = p * f - 0.124056f;
    p = p * f + 0.14219554f;
    p = p * f - 0.16667995f;
    p = p * f + 0.20002119f;
    p = p * f - 0.2500001f;
    p = p * f + 0.33333313f;
    const float square = f * f;
    return f - (0.5f * square - square * f * p);
}

constexpr uint32_t kSqrtHalfBits = 0x3F3504F3u;

// log(x) for positive, normal, finite x: x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
OMNI2_HOST_DEVICE inline float logarithm(float x) {
    const uint32_t shifted = bits_of(x) - kSqrtHalfBits;
    const float e = static_cast<float>(static_cast<int32_t>(shifted) >> 23);
    const float m = float_of((shifted & 0x007FFFFFu) + kSqrtHalfBits);
    return e * kLn2High + (log_one_plus(m - 1.0f) + e * kLn2Low);
}

constexpr float kSmallestExponent = -87.0f;  // below it exp is taken for 0: the result would be a denormal

// exp(x) for x <= 0, -infinity included: x = k ln 2 + r with |r| <= ln 2 / 2.
OMNI2_HOST_DEVICE inline float exponential(float x) {
    const float clamped = x > kSmallestExponent ? x : kSmallestExponent;
    const int32_t k = static_cast<int32_t>(clamped * 1.44269504f - 0.5f);
    const float whole = static_cast<float>(k);
    const float r = (clamped - whole * kLn2High) - whole * kLn2Low;
    float p = 0.0013950473f;
    p = p * r + 0.008368882f;
    p = p * r + 0.041666206f;
    p = p * r + 0.1666652f;
    p = p * r + 0.5f;
    const float scaled = (1.0f + (r + r * r * p)) * float_of(static_cast<uint32_t>(k + 127) << 23);
    return x > kSmallestExponent ? scaled : 0.0f;
}

}  // namespace omni2
