// What every kernel includes. Compiled for a GPU it adds next to nothing. The tests compile the same text for the host, with
// a header that says what CUDA's words mean there (tests/kernels/emulation/emulation.h).
#pragma once

#include "portable.cuh"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define OMNI2_SHARED(Type, name) __shared__ Type name  // a struct that a block's threads share; not cleared
#endif

namespace omni2 {

constexpr uint32_t kThreads = 256;  // of every block of every kernel
constexpr uint32_t kWarps = kThreads / 32;
constexpr uint32_t kWholeWarp = 0xFFFFFFFFu;
constexpr uint32_t kNanBits = 0x7FC00000u;

// What another block has written in this launch: past this multiprocessor's own cache, which is not told of it.
template <class T>
__device__ inline T written_elsewhere(const T* value) {
    return *static_cast<const volatile T*>(value);
}

// One after the other per row: true in every thread of the block that comes last of `blocks`, once the others have written
// all they had to. `ticket` is shared.
__device__ inline bool comes_last(uint32_t* arrived, uint32_t blocks, uint32_t* ticket) {
    __threadfence();  // what this thread wrote, before the block counts as arrived
    __syncthreads();
    if (threadIdx.x == 0) *ticket = atomicAdd(arrived, 1u);
    __syncthreads();
    if (*ticket + 1 != blocks) return false;
    __threadfence();
    return true;
}

}  // namespace omni2
