// What the stand-in libcudart offers beyond CUDA's own functions: a device that tests control, and look into.
#pragma once

#include <cstddef>

struct CUstream_st;

extern "C" {

// As if the process were new: no error, one device, all of its memory, no refusal, no kernel, no log. Streams, events,
// memory and graphs stay.
void fake_cuda_reset();
void fake_cuda_set_devices(int count);
void fake_cuda_set_memory(size_t bytes);                   // that the device has, at first 8 GiB
void fake_cuda_set_capability(int major, int minor);       // at first 8.9

// The next call of `function` (CUDA's name for it) does nothing and returns `status`; `after` calls that work.
void fake_cuda_refuse_next(const char* function, int status);
void fake_cuda_refuse_after(const char* function, int status, int after);

// Enqueues a kernel that takes this time by the stream's clock, which events read, or one that fails: when the stream gets
// there the whole device is lost. Everything not yet run is dropped, and every call returns `status` from then on.
void fake_cuda_delay(CUstream_st* stream, int microseconds);
void fake_cuda_fault(CUstream_st* stream, int status);
void fake_cuda_lose(int status);  // at once, from any thread, host functions included

// Waits until nothing is enqueued or runs any more, on a lost device too; whether it came to that in time.
int fake_cuda_settle(int milliseconds);

// Enqueues function(data), or captures it where the stream does. It must not use CUDA. Returns CUDA's status.
int fake_cuda_call(CUstream_st* stream, void (*function)(void*), void* data);

// Whether what is enqueued on it is recorded.
int fake_cuda_is_recorded(CUstream_st* stream);

// Where the host finds the `bytes` at a device address, which it cannot read there: device memory is not mapped. A host
// address is returned as it is; nullptr: not all of them lie in memory that was allocated and not freed.
void* fake_cuda_contents(const void* address, size_t bytes);

// A kernel that modules have: launch(grid, block, dynamic shared memory, pointers to its arguments). `sizes`: bytes of
// its `count` parameters; what in them is a device address is replaced by where the host finds it.
typedef void (*FakeKernel)(const unsigned* grid, const unsigned* block, size_t shared_memory, void** arguments);
void fake_cuda_add_kernel(const char* name, FakeKernel launch, const size_t* sizes, int count);

// The kernels of a library that emulates them on the host, by the interface of tests/kernels/emulation/emulated.h; one
// that comes to nothing loses the device. Returns how many there are, -1 if it is no such library.
int fake_cuda_emulate(const char* library);

// What exists: created and not destroyed.
int fake_cuda_live_streams();
int fake_cuda_live_events();
int fake_cuda_live_graphs();  // recorded or executable
int fake_cuda_live_modules();
int fake_cuda_live_allocations();        // of device memory
size_t fake_cuda_live_bytes();           // of device memory
int fake_cuda_live_pinned();             // allocations
int fake_cuda_damaged_allocations();     // freed so far, and written beyond their end

// Waits for an event, since the last reset, that kept a processor busy.
int fake_cuda_spinning_waits();

// What ran since the log was begun, a line each: "<stream, from 1 in order of creation> <what>", nodes of a graph behind
// a line of their own that says "graph". The text lives until the next call on this thread.
void fake_cuda_log_begin();
const char* fake_cuda_log();
}
