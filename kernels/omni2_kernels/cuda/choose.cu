// The next token of every row of a batch, greedy or drawn: the answers of cpp/sampling.cpp with top_p = 1, to the bit.
//
// Two launches. A row's logits are cut into tiles of kTile, a block each, for one block alone would take ten microseconds and
// more: a multiprocessor reads some 64 bytes a clock, and there are 142 of them. The block that comes last of a row puts
// together what the others found.
//
// 158,498 logits are 0.63 MB: 0.73 us a row at 864 GB/s, 5.9 us for eight. draw_token reads them again from the L2 cache.
// Above that a launch itself costs 2 to 3 us, and what the last block does alone as much again.
#include "ordered.cuh"
#include "scores.cuh"
#include "select.cuh"

namespace omni2 {
namespace {

constexpr uint32_t kPerThread = 16;
constexpr uint32_t kTile = kThreads * kPerThread;
constexpr uint32_t kBinShift = 21;                          // a key's uppermost 11 bits are its bin
constexpr Cut kKeepAll = {kMinusInfinity >> kBinShift, 0};  // all finite scores, and infinity, have greater bins

// Which ids of the tile are penalised.
struct Tile {
    uint32_t penalised[kTile / 32];
};

// Marks what the penalty is for; the same branch for the whole block.
__device__ inline void mark_penalised(const Batch& batch, const Row& row, Tile& tile) {
    for (uint32_t word = threadIdx.x; word < kTile / 32; word += kThreads) tile.penalised[word] = 0;
    if (row.penalty == 1.0f) return;
    __syncthreads();
    const int32_t* generated = batch.generated + static_cast<size_t>(blockIdx.y) * batch.generated_capacity;
    const uint32_t count = min(row.step, static_cast<uint32_t>(batch.generated_capacity));
    for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
        const uint32_t place = static_cast<uint32_t>(generated[i]) - blockIdx.x * kTile;
        if (place < kTile) atomicOr(&tile.penalised[place / 32], 1u << place % 32);
    }
}

// Key of the score at a place of the tile.
__device__ inline uint32_t key_of_logit(float logit, const Row& row, const Tile& tile, uint32_t place) {
    const bool changed = (tile.penalised[place / 32] >> place % 32 & 1u) != 0;
    return ordered(changed ? penalised(logit, row.penalty) : logit);
}

// The keys of this thread's scores, at places threadIdx.x + i * kThreads of the tile. What lies beyond the vocabulary is no
// number. All loads are under way before the first is used.
__device__ inline void read_keys(const Batch& batch, const Row& row, Tile& tile, uint32_t (&keys)[kPerThread]) {
    const float* logits = batch.logits + blockIdx.y * batch.logits_stride;
    float scores[kPerThread];
#pragma unroll
    for (uint32_t i = 0; i < kPerThread; ++i) {
        const uint32_t id = blockIdx.x * kTile + threadIdx.x + i * kThreads;
        scores[i] = id < static_cast<uint32_t>(batch.vocab) ? logits[id] : float_of(kNanBits);
    }
    mark_penalised(batch, row, tile);
    __syncthreads();
#pragma unroll
    for (uint32_t i = 0; i < kPerThread; ++i)
        keys[i] = key_of_logit(scores[i], row, tile, threadIdx.x + i * kThreads);
}

// One of them again.
__device__ inline uint32_t key_of_id(const Batch& batch, const Row& row, const Tile& tile, uint32_t id) {
    return key_of_logit(batch.logits[blockIdx.y * batch.logits_stride + id], row, tile, id % kTile);
}

// Token `id`'s part in the Gumbel race.
__device__ inline uint64_t raced(const Row& row, float peak, uint32_t key, uint32_t id) {
    const Words words = draw_words({row.seed, row.stream, row.turn, row.step}, id / 4);
    const float distance = below_peak(score_of(key), peak, row.temperature);
    return packed(ordered(race_time(distance, word_of(words, id % 4))), id);
}

__device__ inline uint64_t greater(uint64_t a, uint64_t b) { return a > b ? a : b; }

}  // namespace

// Grid (tiles, rows). Rows in another state than `serve` are left alone.
extern "C" __global__ void __launch_bounds__(kThreads) rank_logits(Batch batch, int32_t serve) {
    struct Space {
        Tile tile;
        Histogram histogram;
        uint64_t warps[kWarps];
        uint32_t ticket;
    };
    OMNI2_SHARED(Space, shared);
    const Row row = batch.rows[blockIdx.y];
    if (row.state != serve) return;
    Contest& contest = batch.contests[blockIdx.y];
    const bool greedy = row.temperature == 0.0f;
    const bool limited = !greedy && row.top_k > 0 && row.top_k < static_cast<uint32_t>(batch.vocab);

    const uint32_t first = blockIdx.x * kTile + threadIdx.x;
    uint32_t keys[kPerThread];
    read_keys(batch, row, shared.tile, keys);
    uint64_t best = 0;
#pragma unroll
    for (uint32_t i = 0; i < kPerThread; ++i) best = greater(best, packed(keys[i], first + i * kThreads));
    best = greatest_in_block(best, shared.warps);
    if (threadIdx.x == 0 && best != 0) atomicMax(&contest.best, best);

    if (limited) {
        clear(shared.histogram);
#pragma unroll
        for (uint32_t i = 0; i < kPerThread; ++i)
            if (keys[i] > kMinusInfinity) atomicAdd(&shared.histogram.bins[keys[i] >> kBinShift], 1u);
        __syncthreads();
        for (uint32_t bin = threadIdx.x; bin < kBins; bin += kThreads)
            if (shared.histogram.bins[bin] != 0) atomicAdd(&contest.histogram[bin], shared.histogram.bins[bin]);
    }
    if (!comes_last(&contest.arrived, gridDim.x, &shared.ticket)) return;

    Cut cut = kKeepAll;
    if (limited) {
        for (uint32_t bin = threadIdx.x; bin < kBins; bin += kThreads) {
            shared.histogram.bins[bin] = written_elsewhere(&contest.histogram[bin]);
            contest.histogram[bin] = 0;
        }
        __syncthreads();
        cut = find_cut(shared.histogram, row.top_k, kKeepAll);
    }
    if (threadIdx.x != 0) return;
    contest.arrived = 0;
    contest.cut = cut.bin;
    contest.rank = cut.rank;
    if (!greedy) return;
    batch.chosen[blockIdx.y] = id_of(written_elsewhere(&contest.best));
    contest.best = 0;
}

// Grid (tiles, rows), after rank_logits. Scores of bins above the cut race at once, those of its own bin once all are known.
extern "C" __global__ void __launch_bounds__(kThreads) draw_token(Batch batch, int32_t serve) {
    struct Space {
        Tile tile;
        Histogram histogram;
        uint64_t warps[kWarps];
        uint32_t ticket;
    };
    OMNI2_SHARED(Space, shared);
    const Row row = batch.rows[blockIdx.y];
    if (row.state != serve || row.temperature == 0.0f) return;
    Contest& contest = batch.contests[blockIdx.y];
    Candidate* candidates = batch.candidates + static_cast<size_t>(blockIdx.y) * batch.vocab;
    const float peak = score_of(key_of(contest.best));
    const Cut cut = {contest.cut, contest.rank};
    const uint32_t lowest_bin = cut.rank > 0 ? cut.bin : cut.bin + 1;

    const uint32_t first = blockIdx.x * kTile + threadIdx.x;
    uint32_t keys[kPerThread];
    read_keys(batch, row, shared.tile, keys);
    uint32_t kept = 0;  // bit i: keys[i] may take part
#pragma unroll
    for (uint32_t i = 0; i < kPerThread; ++i)
        kept |= static_cast<uint32_t>(keys[i] >> kBinShift >= lowest_bin) << i;
    uint64_t winner = 0;
    for (; kept != 0; kept &= kept - 1) {  // few: to read one again is less than to hold 16 by an index
        const uint32_t id = first + (__ffs(static_cast<int>(kept)) - 1) * kThreads;
        const uint32_t key = key_of_id(batch, row, shared.tile, id);
        if (key >> kBinShift > cut.bin)
            winner = greater(winner, raced(row, peak, key, id));
        else
            candidates[atomicAdd(&contest.candidates, 1u)] = {key, id};
    }
    winner = greatest_in_block(winner, shared.warps);
    if (threadIdx.x == 0 && winner != 0) atomicMax(&contest.winner, winner);
    if (!comes_last(&contest.arrived, gridDim.x, &shared.ticket)) return;

    winner = written_elsewhere(&contest.winner);
    if (cut.rank > 0) {
        const uint32_t count = written_elsewhere(&contest.candidates);
        const auto key_at = [&](uint32_t i) { return written_elsewhere(&candidates[i].key); };
        clear(shared.histogram);
        for (uint32_t i = threadIdx.x; i < count; i += kThreads)
            atomicAdd(&shared.histogram.bins[key_at(i) >> 10 & (kBins - 1)], 1u);
        __syncthreads();
        const Cut middle = find_cut(shared.histogram, cut.rank, {0, 0});
        const uint32_t above = cut.bin << 11 | middle.bin;  // a key's uppermost 22 bits
        clear(shared.histogram);
        for (uint32_t i = threadIdx.x; i < count; i += kThreads)
            if (key_at(i) >> 10 == above) atomicAdd(&shared.histogram.bins[key_at(i) & 1023u], 1u);
        __syncthreads();
        const uint32_t threshold = above << 10 | find_cut(shared.histogram, middle.rank, {0, 0}).bin;
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < count; i += kThreads)
            if (key_at(i) >= threshold)
                winner = greater(winner, raced(row, peak, key_at(i), written_elsewhere(&candidates[i].id)));
        winner = greatest_in_block(winner, shared.warps);
    }
    if (threadIdx.x != 0) return;
    batch.chosen[blockIdx.y] = id_of(winner);
    contest.best = 0;
    contest.winner = 0;
    contest.arrived = 0;
    contest.candidates = 0;
}

}  // namespace omni2
