// Arrays of random numbers. draw.cuh, which the GPU kernels share, defines which numbers a draw has.
#pragma once

#include "draw.cuh"

namespace omni2 {

// Fill out[0, count) with the draw's uniforms in (0, 1), or its standard normals; count <= kWordsPerDraw.
void fill_uniform(float* out, size_t count, const DrawKey& key);
void fill_normal(float* out, size_t count, const DrawKey& key);

}  // namespace omni2
