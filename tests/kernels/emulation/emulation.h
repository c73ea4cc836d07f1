// The words of CUDA that the kernels use, for a host without a GPU: included before any kernel. A thread of a block is a fiber
// with a stack of its own: it runs until a barrier and waits there for the others, so that a barrier that is missing is
// missed. machine.h runs them.
//
// A launch's blocks run one after the other on the calling thread, so atomics need be no more than what they say; launches
// on other threads run beside them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __launch_bounds__(threads)

#define OMNI2_SHARED(Type, name)                                                                    \
    static char name##_place;                                                                       \
    Type& name = *static_cast<Type*>(omni2::emulation::shared_memory(&name##_place, sizeof(Type)))

namespace omni2::emulation {

struct Index {
    unsigned x, y, z;
};

// The block's memory for one OMNI2_SHARED: the same for all its threads, full of nonsense at first.
void* shared_memory(const void* place, size_t bytes);

// One __syncthreads in the source. A test can leave it out, to see that it is missed.
struct Barrier {
    Barrier(const char* file, int line);
    void wait() const;  // for all threads of the block that have not ended

    const char* file;
    int line;
    bool left_out = false;
};

// Gives a value to the other lanes of the warp, which `mask` must name, waits for theirs, and returns all 32.
const uint64_t* exchange(unsigned mask, uint64_t value);

inline unsigned lane();

}  // namespace omni2::emulation

inline thread_local omni2::emulation::Index threadIdx, blockIdx, blockDim, gridDim;

inline unsigned omni2::emulation::lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

using std::min;

#define __syncthreads() ([] { static omni2::emulation::Barrier here(__FILE__, __LINE__); here.wait(); }())

inline unsigned __shfl_up_sync(unsigned mask, unsigned value, unsigned distance) {
    const unsigned lane = omni2::emulation::lane();
    const uint64_t* values = omni2::emulation::exchange(mask, value);
    return static_cast<unsigned>(values[lane >= distance ? lane - distance : lane]);
}

inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
    const uint64_t* values = omni2::emulation::exchange(mask, value);
    uint64_t greatest = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
        if ((mask >> lane & 1u) != 0) greatest = std::max(greatest, values[lane]);
    return static_cast<unsigned>(greatest);
}

template <class T>
T atomicAdd(T* place, T value) {
    const T before = *place;
    *place = before + value;
    return before;
}

template <class T>
T atomicMax(T* place, T value) {
    const T before = *place;
    *place = std::max(before, value);
    return before;
}

template <class T>
T atomicOr(T* place, T value) {
    const T before = *place;
    *place = before | value;
    return before;
}

inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_system() { std::atomic_thread_fence(std::memory_order_seq_cst); }

inline int __ffs(int bits) { return __builtin_ffs(bits); }
