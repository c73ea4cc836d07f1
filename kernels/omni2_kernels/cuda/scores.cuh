// What the host's samplers (cpp/sampling.cpp) and the GPU's (choose.cu) must compute alike, one score at a time (spec §6).
#pragma once

#include "draw.cuh"

namespace omni2 {

// A logit as the repetition penalty leaves it where its token was generated before.
OMNI2_HOST_DEVICE inline float penalised(float logit, float penalty) {
    return logit < 0.0f ? logit * penalty : logit / penalty;
}

// Distance of a score from the greatest one, in units of the temperature: 0 at most. The test also serves infinite peaks,
// where the difference is no number.
OMNI2_HOST_DEVICE inline float below_peak(float score, float peak, float temperature) {
    return score == peak ? 0.0f : (score - peak) / temperature;
}

// Gumbel race: the winner of distance_i - log E_i, with E_i exponentially distributed, is distributed as softmax(distance).
// `word` is element i of the draw, from block i / 4.
OMNI2_HOST_DEVICE inline float race_time(float distance, uint32_t word) {
    return distance - logarithm(unit_exponential(word));
}

OMNI2_HOST_DEVICE inline uint32_t word_of(const Words& words, uint32_t lane) {
    return lane < 2 ? (lane == 0 ? words.x0 : words.x1) : (lane == 2 ? words.x2 : words.x3);
}

}  // namespace omni2
