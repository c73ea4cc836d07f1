#include "machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <numeric>

#if defined(__x86_64__)
asm(R"(
.text
.hidden omni2_emulation_switch
.type omni2_emulation_switch, @function
.globl omni2_emulation_switch
omni2_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size omni2_emulation_switch, .-omni2_emulation_switch
)");
#endif

namespace omni2::emulation {
namespace {

constexpr unsigned kMostThreads = 1024;    // of a block
constexpr unsigned kResident = 3;          // blocks at once, where they run in another order than their own
constexpr unsigned kTurns = 32;            // of its warps, on average, until it is another's turn
constexpr size_t kStackBytes = (64 << 10) + 832;  // no power of two, or all would compete for the same lines of a cache
constexpr size_t kSharedBytes = 48 << 10;  // what every GPU gives a block that does not ask for more
constexpr size_t kFence = 64;              // between two structs, to find writes beyond one
constexpr size_t kMemoryBytes = kSharedBytes + 8 * kFence;
constexpr unsigned char kNonsense = 0xA5;
constexpr unsigned kNone = ~0u;

std::mutex barriers_mutex;
std::vector<Barrier*> barriers_met;

}  // namespace

Machine::Block::Block() : fibers(kMostThreads), warps(kMostThreads / 32), memory(new char[kMemoryBytes]) {
    void* mapped = mmap(nullptr, kMostThreads * kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    stacks = static_cast<char*>(mapped);
}

Machine::Block::~Block() { munmap(stacks, kMostThreads * kStackBytes); }

Machine& Machine::mine() {
    static thread_local std::unique_ptr<Machine> machine;  // a pointer: a library has little room for what is per thread
    if (!machine) machine = std::make_unique<Machine>();
    return *machine;
}

void Machine::run(const Launch& launch) {
    launch_ = &launch;
    const Index grid = launch.grid, block = launch.block;
    threads_ = block.x * block.y * block.z;
    if (threads_ == 0 || threads_ > kMostThreads)
        throw Fault("a block has 1 to " + std::to_string(kMostThreads) + " threads, not " + std::to_string(threads_));
    gridDim = grid;
    blockDim = block;
    random_.seed(launch.order);
    warps_ = in_order((threads_ + 31) / 32);
    lanes_ = in_order(32);
    for (unsigned i = 0; i < 32; ++i) place_[lanes_[i]] = i;

    std::vector<unsigned> waiting = in_order(grid.x * grid.y * grid.z);
    std::reverse(waiting.begin(), waiting.end());
    std::vector<Block*> live;
    const size_t most = launch.order == 0 ? 1 : kResident;
    while (live.size() < most && !waiting.empty()) {
        if (resident_.size() == live.size()) resident_.push_back(std::make_unique<Block>());
        live.push_back(resident_[live.size()].get());
        prepare(*live.back());
        begin(*live.back(), waiting.back());
        waiting.pop_back();
    }
    size_t whose = 0;
    while (!live.empty()) {
        // One block runs for a while, and is left in the middle of something until all others had a while.
        if (random_() % kTurns == 0) whose = (whose + 1) % live.size();
        Block& chosen = *live[whose];
        run_warp(chosen);
        if (++chosen.turn < warps_.size()) continue;
        chosen.turn = 0;
        if (!settle(chosen)) continue;
        if (waiting.empty()) {
            live.erase(live.begin() + whose);
            whose = 0;
        } else {
            begin(chosen, waiting.back());
            waiting.pop_back();
        }
    }
}

std::vector<unsigned> Machine::in_order(unsigned count) {
    std::vector<unsigned> order(count);
    std::iota(order.begin(), order.end(), 0u);
    if (launch_->order != 0) std::shuffle(order.begin(), order.end(), random_);
    return order;
}

// Fibers begin anew, in any state that an earlier launch left them in.
void Machine::prepare(Block& block) {
    const Index size = launch_->block;
    for (unsigned i = 0; i < threads_; ++i) {
        block.fibers[i].context.begin(block.stacks + i * kStackBytes, kStackBytes, live);
        block.fibers[i].index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    }
}

// A fiber's life: the kernel once for every block.
void Machine::live() {
    Machine& machine = mine();
    for (;;) {
        machine.launch_->call(machine.launch_->arguments);
        machine.pause(State::kDone);
    }
}

void Machine::begin(Block& block, unsigned number) {
    const Index grid = launch_->grid;
    block.index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
    block.turn = 0;
    block.shared.clear();
    for (unsigned i = 0; i < threads_; ++i) {
        block.fibers[i].state = State::kReady;
        block.fibers[i].exchanges = 0;
    }
    for (Warp& warp : block.warps) warp.mask = warp.arrived = 0;
}

// Until none of the warp's lanes can go on by itself. A lane that has to wait hands over to the next, see pause().
void Machine::run_warp(Block& block) {
    block_ = &block;
    blockIdx = block.index;
    const unsigned first = ready_after(32 * warps_[block.turn] + lanes_.back());
    if (first == kNone) return;
    enter(first);
    scheduler_.switch_to(block.fibers[first].context);
}

// Every warp had its turn: lets the block go past a barrier that all have reached. True: it is done.
bool Machine::settle(Block& block) {
    bool done = true;
    for (unsigned i = 0; i < threads_; ++i) {
        Fiber& fiber = block.fibers[i];
        if (fiber.state == State::kInWarp) throw Fault(stuck(block));
        if (fiber.state == State::kDone) continue;
        fiber.state = State::kReady;
        done = false;
    }
    if (!done) return false;
    for (const Shared& one : block.shared) {
        const char* fence = one.begin + one.bytes;
        if (std::any_of(fence, fence + kFence, [](char byte) { return static_cast<unsigned char>(byte) != kNonsense; }))
            throw Fault("a thread wrote beyond a struct in shared memory of " + std::to_string(one.bytes) + " bytes");
    }
    return true;
}

// The lane of the same warp that is next and can go on, or kNone.
unsigned Machine::ready_after(unsigned fiber) const {
    const unsigned lane = fiber % 32, first = fiber - lane;
    for (unsigned i = 1; i <= 32; ++i) {
        const unsigned other = first + lanes_[(place_[lane] + i) % 32];
        if (other < threads_ && block_->fibers[other].state == State::kReady) return other;
    }
    return kNone;
}

void Machine::enter(unsigned fiber) {
    current_ = fiber;
    threadIdx = block_->fibers[fiber].index;
}

void Machine::pause(State state) {
    Fiber& fiber = block_->fibers[current_];
    fiber.state = state;
    const unsigned next = ready_after(current_);
    if (next == kNone) {
        fiber.context.switch_to(scheduler_);
    } else {
        enter(next);
        fiber.context.switch_to(block_->fibers[next].context);
    }
}

void Machine::wait_for_block() { pause(State::kAtBarrier); }

const uint64_t* Machine::exchange(unsigned mask, uint64_t value) {
    Fiber& fiber = block_->fibers[current_];
    Warp& warp = block_->warps[current_ / 32];
    const unsigned lane = current_ % 32, first = current_ - lane;
    uint64_t* values = warp.values[fiber.exchanges++ % 2].data();
    values[lane] = value;
    if (warp.arrived == 0) warp.mask = mask;
    warp.arrived |= 1u << lane;
    if (mask != warp.mask || (mask >> lane & 1u) == 0 || warp.arrived != mask) {
        pause(State::kInWarp);  // for ever, where the lanes do not agree on who takes part
        return values;
    }
    warp.arrived = 0;
    for (unsigned other = 0; other < 32; ++other)
        if (other != lane && (mask >> other & 1u) != 0) block_->fibers[first + other].state = State::kReady;
    return values;
}

void* Machine::shared_memory(const void* place, size_t bytes) {
    for (const Shared& known : block_->shared)
        if (known.place == place) return known.begin;
    char* const memory = block_->memory.get();
    char* begin = block_->shared.empty() ? memory : block_->shared.back().begin + block_->shared.back().bytes + kFence;
    begin += (kFence - reinterpret_cast<uintptr_t>(begin) % kFence) % kFence;
    if (begin + bytes + kFence > memory + kMemoryBytes) {  // no exception may pass through a fiber
        std::fprintf(stderr, "a block takes more than %zu bytes of shared memory\n", kSharedBytes);
        std::abort();
    }
    std::memset(begin, kNonsense, bytes + kFence);
    block_->shared.push_back({place, begin, bytes});
    return begin;
}

std::string Machine::stuck(const Block& block) const {
    const auto count = [&](State state) {
        return std::to_string(std::count_if(block.fibers.begin(), block.fibers.begin() + threads_,
                                            [&](const Fiber& fiber) { return fiber.state == state; }));
    };
    return "block " + std::to_string(block.index.x) + ", " + std::to_string(block.index.y) + " is stuck: " +
           count(State::kInWarp) + " threads wait for their warp, " + count(State::kDone) + " have ended";
}

void* shared_memory(const void* place, size_t bytes) { return Machine::mine().shared_memory(place, bytes); }

Barrier::Barrier(const char* in_file, int at_line) : file(in_file), line(at_line) {
    const std::lock_guard<std::mutex> lock(barriers_mutex);
    barriers_met.push_back(this);
}

std::vector<Barrier*> barriers() {
    const std::lock_guard<std::mutex> lock(barriers_mutex);
    return barriers_met;
}

void Barrier::wait() const {
    if (!left_out) Machine::mine().wait_for_block();
}

const uint64_t* exchange(unsigned mask, uint64_t value) { return Machine::mine().exchange(mask, value); }

}  // namespace omni2::emulation
