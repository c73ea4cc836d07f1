// Runs the blocks of a kernel's grid on one thread of the host. A thread of a block is a fiber; a warp runs until all its
// lanes wait, then it is another one's turn.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulation.h"
#include "fiber.h"

namespace omni2::emulation {

// What a GPU would hang on, or would not tell: threads that wait for one another for ever, memory beyond a shared struct.
struct Fault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Those any launch has come to so far.
std::vector<Barrier*> barriers();

struct Launch {
    void (*call)(void** arguments);  // the kernel, for one thread
    void** arguments;
    Index grid, block;
    uint64_t order;  // 0: one block after the other, warps and lanes in order; else several at once, in one of many orders
};

class Machine {
public:
    static Machine& mine();  // this thread's

    // Throws Fault.
    void run(const Launch& launch);

    void* shared_memory(const void* place, size_t bytes);
    void wait_for_block();
    const uint64_t* exchange(unsigned mask, uint64_t value);

private:
    enum class State { kReady, kAtBarrier, kInWarp, kDone };

    struct Fiber {
        Context context;
        Index index;
        State state;
        unsigned exchanges;  // so far
    };

    struct Warp {
        // Two sets of values: who is still reading one has not given anything to the next but one.
        std::array<std::array<uint64_t, 32>, 2> values;
        unsigned mask, arrived;
    };

    struct Shared {
        const void* place;
        char* begin;
        size_t bytes;
    };

    // What a multiprocessor keeps of a block: its threads' stacks and its shared memory.
    struct Block {
        Block();
        ~Block();
        Block(const Block&) = delete;
        Block& operator=(const Block&) = delete;

        Index index;
        unsigned turn;  // which warp in the order is next
        std::vector<Fiber> fibers;
        std::vector<Warp> warps;
        std::vector<Shared> shared;
        std::unique_ptr<char[]> memory;
        char* stacks;
    };

    static void live();
    void prepare(Block& block);
    void begin(Block& block, unsigned number);
    void run_warp(Block& block);
    bool settle(Block& block);
    unsigned ready_after(unsigned fiber) const;
    void enter(unsigned fiber);
    void pause(State state);
    std::vector<unsigned> in_order(unsigned count);
    std::string stuck(const Block& block) const;

    const Launch* launch_ = nullptr;
    std::mt19937_64 random_;
    std::vector<std::unique_ptr<Block>> resident_;
    std::vector<unsigned> warps_, lanes_;   // in which order they run
    std::array<unsigned, 32> place_;        // of a lane in that
    Context scheduler_;
    Block* block_ = nullptr;                // whose fiber runs
    unsigned current_ = 0, threads_ = 0;
};

}  // namespace omni2::emulation
