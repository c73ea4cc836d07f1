// What follows the choice of a token, so that the next step of the model needs nothing from the host: lists, rings, and the
// model's inputs. A block for each row.
//
// A row of 3584 elements in 16 bits and the hidden state that goes with it are 43 kB: 0.05 us at 864 GB/s, 0.4 us for eight
// rows. What it takes is a launch.
#include "elements.cuh"

namespace omni2 {
namespace {

// Whether the cache and the mask have room for the token to be fed next.
__device__ inline bool has_room(const Batch& batch, const Row& row) {
    return row.length < row.spare && row.length < batch.visible;
}

// Puts a token among the model's inputs at position row.length, all threads of the block together. With `whole` the mask is
// set from its beginning; else it is right up to there, and only opens by one.
__device__ inline void feed(const Batch& batch, const Row& row, int32_t token, bool whole) {
    const size_t r = blockIdx.x;
    for (int32_t i = static_cast<int32_t>(threadIdx.x); i < batch.width; i += kThreads)
        set_element(batch.embeds, batch.embeds_type, r * batch.width + i,
                    table_element(batch.table, batch.table_type, batch.table_rows, batch.width, token, i));
    uint8_t* mask = batch.mask + r * batch.visible;
    if (whole)
        for (int32_t i = static_cast<int32_t>(threadIdx.x); i < batch.visible; i += kThreads) mask[i] = i <= row.length;
    else if (threadIdx.x == 0)
        mask[row.length] = 1;
    if (threadIdx.x != 0) return;
    batch.positions[r] = row.length;
    batch.write[r] = row.length;
}

// Lets the model write its results for this row to the spare position, which is never read. That position may lie beyond the
// rotary tables, so the model is given position 0. The mask stays: a query that sees no key gives NaN, which would stay in the
// cache.
__device__ inline void park(const Batch& batch, const Row& row) {
    batch.positions[blockIdx.x] = 0;
    batch.write[blockIdx.x] = row.spare;
}

// Reports to the host. A host that sees the report also sees all writes before it.
__device__ inline void report(const Batch& batch, uint32_t step, int32_t stop) {
    if (batch.reports == nullptr) return;
    __threadfence_system();
    const uint64_t both = static_cast<uint64_t>(static_cast<uint32_t>(stop)) << 32 | step;
    *reinterpret_cast<volatile uint64_t*>(&batch.reports[blockIdx.x]) = both;
}

__device__ inline bool ends(const Row& row, int32_t token) {
    bool found = false;
#pragma unroll
    for (int i = 0; i < kMostEnds; ++i) found = found || row.ends[i] == token;
    return found;
}

}  // namespace

// Grid (rows). Rows in another state than `serve`, which is kRunning or kPrefilled, are left alone.
extern "C" __global__ void __launch_bounds__(kThreads) sample_and_embed(Batch batch, int32_t serve) {
    const size_t r = blockIdx.x;
    const Row row = batch.rows[r];
    if (row.state != serve) return;
    int32_t token = batch.chosen[r];
    if (batch.forced != nullptr && row.step < min(row.forced, static_cast<uint32_t>(batch.forced_capacity))) {
        const int32_t given = batch.forced[r * batch.forced_capacity + row.step];
        if (given >= 0) token = given;
    }
    const bool listed = token >= 0 && row.step < static_cast<uint32_t>(batch.generated_capacity);
    int32_t stop = kNotStopped;
    if (!listed)
        stop = token < 0 ? kNoLogit : kFull;
    else if (ends(row, token))
        stop = kEnd;
    else if (row.step + 1 >= row.until)
        stop = kUntil;
    else if (!has_room(batch, row))
        stop = kFull;

    if (listed && batch.hidden_ring != nullptr) {
        const size_t slot = r * batch.hidden_ring_size + row.step % static_cast<uint32_t>(batch.hidden_ring_size);
        for (int32_t i = static_cast<int32_t>(threadIdx.x); i < batch.width; i += kThreads)
            batch.hidden_ring[slot * batch.width + i] = batch.hidden[r * batch.hidden_stride + i];
    }
    if (stop == kNotStopped) feed(batch, row, token, serve != kRunning);
    __syncthreads();  // all have read the row
    if (threadIdx.x != 0) return;

    Row& next = batch.rows[r];
    next.stop = stop;
    if (listed) {
        next.step = row.step + 1;
        batch.generated[r * batch.generated_capacity + row.step] = token;
        if (batch.tokens != nullptr)
            batch.tokens[r * batch.token_ring_size + row.step % static_cast<uint32_t>(batch.token_ring_size)] = token;
    }
    if (stop == kNotStopped) {
        next.state = kRunning;
        next.length = row.length + 1;
    } else {
        next.state = kParked;
        park(batch, row);
    }
    report(batch, next.step, stop);
}

// Grid (rows), before the steps of a multi-step decode: sets the inputs of joining rows and of parked ones.
extern "C" __global__ void __launch_bounds__(kThreads) resume(Batch batch) {
    const size_t r = blockIdx.x;
    const Row row = batch.rows[r];
    const uint32_t last = row.step - 1;  // beyond any list where there is none
    const bool joins = row.state == kJoining && last < static_cast<uint32_t>(batch.generated_capacity) && has_room(batch, row);
    if (joins) feed(batch, row, batch.generated[r * batch.generated_capacity + last], true);
    __syncthreads();  // all have read the row
    if (threadIdx.x != 0) return;
    Row& next = batch.rows[r];
    if (joins) {
        next.state = kRunning;
        next.length = row.length + 1;
        return;
    }
    if (row.state == kJoining) {
        next.state = kParked;
        next.stop = kFull;
        report(batch, row.step, kFull);
    }
    if (next.state != kParked) return;
    park(batch, row);
    batch.mask[r * batch.visible] = 1;  // a row that never was anything has no open position yet
}

}  // namespace omni2
