// The plain kernels of training, part of the reference table.
#pragma once

#include "kernels/cpu/training_kernels.hpp"

namespace tandem::kernels::cpu {

extern const training_kernels reference_training;

}  // namespace tandem::kernels::cpu
