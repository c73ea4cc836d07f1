// The k-th greatest by counting: keys are sorted into bins by some of their bits, and the bin that holds the k-th is the one
// to look into with the next bits.
#pragma once

#include "decoding.cuh"
#include "device.cuh"

namespace omni2 {

// Where the rank-th greatest lies: in `bin`, as that bin's own rank-th greatest.
struct Cut {
    uint32_t bin, rank;
};

struct Histogram {
    uint32_t bins[kBins];
    uint32_t warps[kWarps];  // totals, while they are added up
    Cut cut;
};

__device__ inline void clear(Histogram& shared) {
    for (uint32_t bin = threadIdx.x; bin < kBins; bin += kThreads) shared.bins[bin] = 0;
    __syncthreads();
}

// The cut of the rank-th greatest, rank >= 1, in every thread of the block; `fewer` where the bins hold less than that.
// All counts are there: the caller has synchronised.
__device__ inline Cut find_cut(Histogram& shared, uint32_t rank, Cut fewer) {
    constexpr uint32_t kMine = kBins / kThreads;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t uppermost = kBins - 1 - threadIdx.x * kMine;  // the first thread has the greatest bins
    uint32_t mine = 0;
    for (uint32_t i = 0; i < kMine; ++i) mine += shared.bins[uppermost - i];
    uint32_t up_to_me = mine;
    for (uint32_t distance = 1; distance < 32; distance *= 2) {
        const uint32_t before = __shfl_up_sync(kWholeWarp, up_to_me, distance);
        if (lane >= distance) up_to_me += before;
    }
    if (lane == 31) shared.warps[warp] = up_to_me;
    if (threadIdx.x == 0) shared.cut = fewer;
    __syncthreads();
    for (uint32_t i = 0; i < warp; ++i) up_to_me += shared.warps[i];
    uint32_t left = rank - (up_to_me - mine);
    if (up_to_me >= rank && up_to_me - mine < rank)  // in one thread at most
        for (uint32_t i = 0; i < kMine; ++i) {
            const uint32_t bin = uppermost - i, count = shared.bins[bin];
            if (left <= count) {
                shared.cut = {bin, left};
                break;
            }
            left -= count;
        }
    __syncthreads();
    return shared.cut;
}

}  // namespace omni2
