// Arrays of random numbers, computed in small chunks whose loops the compiler turns into vector instructions.
#include "sampling/random.h"

#include <algorithm>
#include <cmath>

namespace omni2 {
namespace {

// Uniform in the open interval (0, 1), with 23 bits and a half so that neither end is reached.
inline float unit_uniform(uint32_t word) {
    return (static_cast<float>(static_cast<int32_t>(word >> 9)) + 0.5f) * 0x1p-23f;
}

// The polynomials are minimax fits of our own, written out as in elementary.cuh; absolute errors stay below 2e-7.
struct SineCosine {
    float sine, cosine;
};

// Sine and cosine of 2 pi * word / 2^32. The turn is cut into quadrants in integers, so the reduction is exact.
inline SineCosine sine_cosine_of_turn(uint32_t word) {
    const uint32_t quadrant = (word + 0x20000000u) >> 30;  // nearest quarter turn
    const float a = static_cast<float>(static_cast<int32_t>(word - (quadrant << 30))) * 1.46291808e-9f;  // 2 pi / 2^32
    const float z = a * a;
    float s = -0.000195173f;
    s = s * z + 0.008332178f;
    s = s * z - 0.16666655f;
    s = a + a * z * s;
    float c = 2.4438452e-05f;
    c = c * z - 0.0013887368f;
    c = c * z + 0.041666646f;
    c = 1.0f - (0.5f * z - z * z * c);
    const bool swapped = (quadrant & 1u) != 0;
    const uint32_t sine = bits_of(swapped ? c : s) ^ ((quadrant & 2u) << 30);
    const uint32_t cosine = bits_of(swapped ? s : c) ^ (((quadrant + 1u) & 2u) << 30);
    return {float_of(sine), float_of(cosine)};
}

struct NormalPair {
    float first, second;
};

// Two independent standard normals from two words (Box and Muller, 1958).
inline NormalPair normal_pair(uint32_t radius_word, uint32_t angle_word) {
    const float radius = std::sqrt(2.0f * unit_exponential(radius_word));
    const SineCosine direction = sine_cosine_of_turn(angle_word);
    return {radius * direction.cosine, radius * direction.sine};
}

constexpr uint32_t kBlocks = 64;  // Philox blocks per chunk: enough to fill vectors, small enough for the first cache
constexpr size_t kChunk = 4 * kBlocks;

// Each step of the work is a loop of its own over the chunk's blocks: a joint loop is too large to be vectorised.
struct Chunk {
    uint32_t words[4][kBlocks];
    float values[4][kBlocks];
};

void draw_chunk(Chunk& chunk, const DrawKey& key, uint32_t first_block) {
    for (uint32_t i = 0; i < kBlocks; ++i) {
        const Words drawn = draw_words(key, first_block + i);
        chunk.words[0][i] = drawn.x0;
        chunk.words[1][i] = drawn.x1;
        chunk.words[2][i] = drawn.x2;
        chunk.words[3][i] = drawn.x3;
    }
}

void make_uniform(Chunk& chunk) {
    for (int row = 0; row < 4; ++row)
        for (uint32_t i = 0; i < kBlocks; ++i) chunk.values[row][i] = unit_uniform(chunk.words[row][i]);
}

void make_normal(Chunk& chunk) {
    for (int row = 0; row < 4; row += 2)
        for (uint32_t i = 0; i < kBlocks; ++i) {
            const NormalPair pair = normal_pair(chunk.words[row][i], chunk.words[row + 1][i]);
            chunk.values[row][i] = pair.first;
            chunk.values[row + 1][i] = pair.second;
        }
}

template <void (*Make)(Chunk&)>
void fill(float* out, size_t count, const DrawKey& key) {
    Chunk chunk;
    float interleaved[kChunk];
    for (size_t start = 0; start < count; start += kChunk) {
        draw_chunk(chunk, key, static_cast<uint32_t>(start / 4));
        Make(chunk);
        for (uint32_t i = 0; i < kBlocks; ++i)
            for (int row = 0; row < 4; ++row) interleaved[4 * i + row] = chunk.values[row][i];
        std::copy_n(interleaved, std::min(kChunk, count - start), out + start);
    }
}

}  // namespace

void fill_uniform(float* out, size_t count, const DrawKey& key) { fill<make_uniform>(out, count, key); }

void fill_normal(float* out, size_t count, const DrawKey& key) { fill<make_normal>(out, count, key); }

}  // namespace omni2
