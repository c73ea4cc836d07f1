// The data of a decoding step on the device: a batch of conversations ("rows") in the slots of one static KV cache. The host
// sets a row when a multi-step decode begins; kernels update it in every step, so that a captured graph of one step (model,
// choose, sample_and_embed) can be launched again without a change. decoding.py mirrors these structs.
#pragma once

#include "portable.cuh"

namespace omni2 {

// The state of a row.
enum State : int32_t {
    kParked = 0,     // takes part in no step: the model writes what it computes for it to the spare position
    kRunning = 1,    // the model's inputs hold its last token; the next step chooses from what the model makes of it
    kPrefilled = 2,  // its logits are there and nothing is chosen from them yet
    kJoining = 3,    // its last token is chosen but not among the model's inputs: `resume` puts it there
};

// Why a row was parked.
enum Stop : int32_t {
    kNotStopped = 0,
    kEnd = 1,       // one of its end ids was chosen
    kUntil = 2,     // it has as many tokens as were asked for
    kNoLogit = 3,   // no logit is a usable number
    kFull = 4,      // no position in the cache, or in the list of its tokens, is left
};

enum ElementType : int32_t { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2 };

constexpr int kMostEnds = 8;

struct Row {
    uint64_t seed;           // the draw's key; the token's number `step` completes it
    uint32_t stream, turn;
    uint32_t step;           // tokens of this turn so far: the number of the next one; moved on by the device
    float temperature;       // 0: greedy
    float penalty;           // of ids this turn has already; 1: none
    uint32_t top_k;          // 0: all
    int32_t state;           // State; moved on by the device
    int32_t stop;            // Stop; set by the device
    uint32_t until;          // parked once `step` is this
    uint32_t forced;         // number of the turn's first ids that are given, where not -1
    int64_t length;          // positions the cache holds when the model has run on what its inputs hold; moved on likewise
    int64_t spare;           // the position where a parked row writes; never filled
    int32_t ends[kMostEnds];  // parked once one of these is chosen; -1: unused
};

// What the host reads while the device goes on, in mapped memory: one aligned word of 8 bytes, so both halves belong together.
struct Report {
    uint32_t step;  // tokens of the turn that are in the ring
    int32_t stop;
};

constexpr uint32_t kBins = 2048;  // of scores, by their uppermost 11 bits

// Scratch of one row between rank_logits and draw_token. All zero before the first step; every step leaves it so
// but for cut and rank.
struct Contest {
    uint64_t best;        // greatest score and its id
    uint64_t winner;      // greatest race time and its id
    uint32_t arrived;     // blocks that have done their part
    uint32_t cut;         // scores of greater bins are kept
    uint32_t rank;        // and of this bin's the so-many greatest, ties included
    uint32_t candidates;  // how many scores this bin has, as they are found
    uint32_t histogram[kBins];
};

struct Candidate {
    uint32_t key;  // ordered(score)
    uint32_t id;
};

// A batch: B rows, row r of every array at index r. Strides count elements; a pointer that is null is not used.
struct Batch {
    Row* rows;                // (B)
    const float* logits;      // (B, vocab), rows logits_stride apart
    int32_t* chosen;          // (B) ids, -1 where no logit is usable
    Contest* contests;        // (B)
    Candidate* candidates;    // (B, vocab)
    int32_t* generated;       // (B, generated_capacity) ids of the turn
    const int32_t* forced;    // (B, forced_capacity) or null: ids to take instead of what was chosen; -1: take that
    int32_t* tokens;          // (B, token_ring), mapped: token i of a turn at i % token_ring
    Report* reports;          // (B), mapped
    const float* hidden;      // (B, width), rows hidden_stride apart, or null
    float* hidden_ring;       // (B, hidden_ring_size, width) or null: what produced token i of a turn, at i % its size
    const void* table;        // (table_rows, width) token embeddings
    void* embeds;             // (B, width) the model's next inputs
    int64_t* positions;       // (B)
    int64_t* write;           // (B)
    uint8_t* mask;            // (B, visible), 1 where a query may look
    int64_t logits_stride, hidden_stride;
    int32_t vocab, table_rows, width, visible;
    int32_t generated_capacity, forced_capacity, token_ring_size, hidden_ring_size;
    int32_t table_type, embeds_type;  // ElementType
};

static_assert(sizeof(Row) == 96 && sizeof(Report) == 8 && sizeof(Candidate) == 8, "decoding.py says so");
static_assert(sizeof(Contest) == 32 + 4 * kBins && sizeof(Batch) == 184, "decoding.py says so");

}  // namespace omni2
