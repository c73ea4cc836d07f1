// All kernels, compiled for the host, and the table by which they are found.
#include "emulation.h"

#include "choose.cu"
#include "continue.cu"

#include <atomic>
#include <cstring>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "emulated.h"
#include "machine.h"

namespace omni2::emulation {
namespace {

struct Entry {
    const char* name;
    void (*call)(void** arguments);
    std::vector<int> parameter_bytes;
};

// Calls a function with arguments that are given as pointers to their values.
template <auto kernel>
struct Caller;

template <class... Parameters, void (*kernel)(Parameters...)>
struct Caller<kernel> {
    template <size_t... i>
    static void call_with(void** arguments, std::index_sequence<i...>) {
        kernel(*static_cast<Parameters*>(arguments[i])...);
    }

    static void call(void** arguments) { call_with(arguments, std::index_sequence_for<Parameters...>()); }

    static Entry entry(const char* name) { return {name, call, {static_cast<int>(sizeof(Parameters))...}}; }
};

#define ENTRY(kernel) Caller<&kernel>::entry(#kernel)

const std::vector<Entry>& entries() {
    static const std::vector<Entry> all = {
        ENTRY(rank_logits), ENTRY(draw_token), ENTRY(sample_and_embed), ENTRY(resume),
    };
    return all;
}

const Entry* find(const char* name) {
    for (const Entry& entry : entries())
        if (std::strcmp(entry.name, name) == 0) return &entry;
    return nullptr;
}

struct Place {
    const char* name;
    size_t bytes;
};

#define SIZE(Type) Place{#Type, sizeof(Type)}
#define FIELD(Type, field) Place{#Type "." #field, offsetof(Type, field)}

const std::vector<Place>& places() {
    static const std::vector<Place> all = {
        SIZE(Row), FIELD(Row, seed), FIELD(Row, stream), FIELD(Row, turn), FIELD(Row, step), FIELD(Row, temperature),
        FIELD(Row, penalty), FIELD(Row, top_k), FIELD(Row, state), FIELD(Row, stop), FIELD(Row, until), FIELD(Row, forced),
        FIELD(Row, length), FIELD(Row, spare), FIELD(Row, ends),
        SIZE(Report), FIELD(Report, step), FIELD(Report, stop),
        SIZE(Candidate), FIELD(Candidate, key), FIELD(Candidate, id),
        SIZE(Contest), FIELD(Contest, best), FIELD(Contest, winner), FIELD(Contest, arrived), FIELD(Contest, cut),
        FIELD(Contest, rank), FIELD(Contest, candidates), FIELD(Contest, histogram),
        SIZE(Batch), FIELD(Batch, rows), FIELD(Batch, logits), FIELD(Batch, chosen), FIELD(Batch, contests),
        FIELD(Batch, candidates), FIELD(Batch, generated), FIELD(Batch, forced), FIELD(Batch, tokens), FIELD(Batch, reports),
        FIELD(Batch, hidden), FIELD(Batch, hidden_ring), FIELD(Batch, table), FIELD(Batch, embeds), FIELD(Batch, positions),
        FIELD(Batch, write), FIELD(Batch, mask), FIELD(Batch, logits_stride), FIELD(Batch, hidden_stride), FIELD(Batch, vocab),
        FIELD(Batch, table_rows), FIELD(Batch, width), FIELD(Batch, visible), FIELD(Batch, generated_capacity),
        FIELD(Batch, forced_capacity), FIELD(Batch, token_ring_size), FIELD(Batch, hidden_ring_size),
        FIELD(Batch, table_type), FIELD(Batch, embeds_type),
    };
    return all;
}

std::atomic<uint64_t> order{0};
thread_local std::string error;

}  // namespace
}  // namespace omni2::emulation

using namespace omni2::emulation;

extern "C" {

int omni2_emulated_launch(const char* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, void** arguments) {
    try {
        const Entry* entry = find(kernel);
        if (entry == nullptr) throw Fault("there is no kernel of this name");
        if (grid_x == 0 || grid_y == 0 || grid_z == 0) throw Fault("the grid is empty");
        if (shared_bytes != 0) throw Fault("no kernel takes shared memory at its launch");
        Machine::mine().run(
            {entry->call, arguments, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, order.load()});
        return 0;
    } catch (const std::exception& fault) {
        error = std::string(kernel) + ": " + fault.what();
        return 1;
    }
}

const char* omni2_emulated_error(void) { return error.c_str(); }

const char* omni2_emulated_kernel(int index) {
    return index >= 0 && index < static_cast<int>(entries().size()) ? entries()[index].name : nullptr;
}

int omni2_emulated_parameter_bytes(const char* kernel, int index) {
    const Entry* entry = find(kernel);
    if (entry == nullptr) return -1;
    const auto& bytes = entry->parameter_bytes;
    return index >= 0 && index < static_cast<int>(bytes.size()) ? bytes[index] : 0;
}

void omni2_emulated_order(uint64_t value) { order = value; }

const char* omni2_emulated_barrier(int index) {
    static thread_local std::string place;
    const auto met = barriers();
    if (index < 0 || index >= static_cast<int>(met.size())) return nullptr;
    const std::string file = met[index]->file;
    place = file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(met[index]->line);
    return place.c_str();
}

void omni2_emulated_leave_out(int index, int left_out) { barriers().at(index)->left_out = left_out != 0; }

int omni2_emulated_layout(const char* name) {
    for (const Place& place : places())
        if (std::strcmp(place.name, name) == 0) return static_cast<int>(place.bytes);
    return -1;
}
}
