// Arrays of random numbers, computed in small chunks whose loops the compiler turns into vector instructions.
#include "random.h"

#include <algorithm>

namespace omni2 {
namespace {

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
