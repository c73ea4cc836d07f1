/* The kernels on a host without a GPU: launched by name, as cuLaunchKernel launches a function. Made by the Makefile beside
   this folder: libomni2_emulated.so. */
#pragma once

#ifdef __cplusplus
#include <cstdint>
extern "C" {
#else
#include <stdint.h>
#endif

/* Runs a kernel to its end on the calling thread. `arguments` has a pointer to the value of every parameter. Returns 0, or 1
   where the kernel is not known or comes to nothing; then omni2_emulated_error() says why, on this thread. */
int omni2_emulated_launch(const char* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, void** arguments);
const char* omni2_emulated_error(void);

/* Name of kernel `index`, from 0 on; null beyond the last. */
const char* omni2_emulated_kernel(int index);

/* Bytes of parameter `index` of a kernel; 0 beyond its last, -1 where the kernel is not known. */
int omni2_emulated_parameter_bytes(const char* kernel, int index);

/* In which order the threads and blocks of later launches run, of all threads: 0, their own; else one of many others. A right
   kernel computes the same in any. */
void omni2_emulated_order(uint64_t order);

/* Where barrier `index` of those that launches have come to so far stands ("select.cuh:46"), valid until this thread asks for
   another; null beyond the last. The other leaves it out from now on, or puts it back: a test of the tests. */
const char* omni2_emulated_barrier(int index);
void omni2_emulated_leave_out(int index, int left_out);

/* Where a field stands in its struct ("Row.seed"), or how long the struct is ("Row"), in bytes; -1: not known. */
int omni2_emulated_layout(const char* name);

#ifdef __cplusplus
}
#endif
