// Random numbers by name: a draw depends on its seed and stream, on turn and step, and on the index in the array,
// never on what was drawn before. That makes one seed give one answer on any schedule, batch or thread count.
//
// Philox's key is the seed (low word first); its counter is [block, step, turn, stream], a word each, so that two different
// draws can never meet. Element i of a draw comes from block i / 4.
#pragma once

#include "elementary.cuh"
#include "philox.cuh"

namespace omni2 {

struct DrawKey {
    uint64_t seed;
    uint32_t stream, turn, step;
};

constexpr uint64_t kWordsPerDraw = uint64_t{4} << 32;  // a block index is one word

OMNI2_HOST_DEVICE inline Words draw_words(const DrawKey& key, uint32_t block) {
    return philox4x32({block, key.step, key.turn, key.stream},
                      {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

// Exponentially distributed: -log u of a 31-bit uniform u. Near u = 1 the complement is what is rounded to a float, not u:
// small values, which decide a Gumbel race, keep their full precision (the least is 2^-32).
OMNI2_HOST_DEVICE inline float unit_exponential(uint32_t word) {
    const uint32_t u = word >> 1;
    const bool near_one = u >= 0x5A82799Au;  // 2^31 sqrt(1/2)
    const uint32_t distance = near_one ? 0x7FFFFFFFu - u : u;
    const float v = (static_cast<float>(static_cast<int32_t>(distance)) + 0.5f) * 0x1p-31f;
    const uint32_t shifted = bits_of(v) - kSqrtHalfBits;
    const float e = near_one ? 0.0f : static_cast<float>(static_cast<int32_t>(shifted) >> 23);
    const float f = near_one ? -v : float_of((shifted & 0x007FFFFFu) + kSqrtHalfBits) - 1.0f;
    return -(e * kLn2High + (log_one_plus(f) + e * kLn2Low));
}

}  // namespace omni2
