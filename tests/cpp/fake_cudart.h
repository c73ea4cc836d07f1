// What the stand-in libcudart offers beyond CUDA's own functions: a device that tests control.
#pragma once

struct CUstream_st;

extern "C" {

// As if the process were new: no error, one device, no refusal. Streams and events stay.
void fake_cuda_reset();
void fake_cuda_set_devices(int count);

// The next call of `function` (CUDA's name for it) does nothing and returns `status`.
void fake_cuda_refuse_next(const char* function, int status);

// Enqueues a kernel that takes so long, or one that fails: when the stream gets there the whole device is lost.
// Everything not yet run is dropped, host functions too, and every call returns `status` from then on.
void fake_cuda_delay(CUstream_st* stream, int microseconds);
void fake_cuda_fault(CUstream_st* stream, int status);

// A cudaGraphExec_t with one node, which takes so long and then calls function(data).
void* fake_cuda_graph(void (*function)(void*), void* data, int microseconds);
void fake_cuda_graph_destroy(void* graph);

// Streams and events that have been created and not destroyed.
int fake_cuda_live_streams();
int fake_cuda_live_events();
}
