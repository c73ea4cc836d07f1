// What a header needs so that one text compiles for the host (the samplers in cpp/), for CUDA through NVRTC, and with nvcc:
// integers of fixed width and the word that makes a function callable from both sides.
#pragma once

#if defined(__CUDACC_RTC__)  // has no standard library
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
using size_t = decltype(sizeof 0);
#else
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#endif

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define OMNI2_HOST_DEVICE __host__ __device__
#else
#define OMNI2_HOST_DEVICE
#endif
