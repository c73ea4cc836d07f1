// Waveforms at the end of the pipeline, as audio.py has them: the cross-fade between two vocoder calls, and 16-bit samples.
//
// 28 and 6 bytes a sample: 0.1 us at 864 GB/s for a fade of 3840 samples, as much for half a second of sound. What it takes is
// a launch.
#include "device.cuh"
#include "elementary.cuh"

namespace omni2 {

// `window` has 2 * overlap weights; its first half is the head's. `out` may be `head`.
extern "C" __global__ void __launch_bounds__(kThreads)
    cross_fade(const float* head, const float* tail, const double* window, float* out, int32_t overlap) {
    const int32_t i = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
    if (i >= overlap) return;
    out[i] = static_cast<float>(head[i] * window[i] + tail[i] * window[overlap + i]);
}

extern "C" __global__ void __launch_bounds__(kThreads) pack_pcm16(const float* pcm, int16_t* out, int64_t count) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= count) return;
    float sample = pcm[i];
    if (sample != sample) sample = 0.0f;
    sample = sample < -1.0f ? -1.0f : sample > 1.0f ? 1.0f : sample;
    out[i] = static_cast<int16_t>(rintf(sample * 32767.0f));
}

}  // namespace omni2
