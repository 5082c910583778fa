// AVX-512 F, BW, DQ and VL; integer products without VNNI.
#include "kernels/cpu/lanes_avx512.hpp"
//
#include "kernels/cpu/lanes_attention.hpp"
#include "kernels/cpu/lanes_peaks.hpp"
#include "kernels/cpu/lanes_products.hpp"
#include "kernels/cpu/lanes_rows.hpp"
#include "kernels/cpu/lanes_training.hpp"
#include "kernels/cpu/lanes_training_attention.hpp"

namespace tandem::kernels::cpu {

constinit const kernel_table avx512_table = {
    .block_strip_rows = lanes::block_strip_rows,
    .float_strip_rows = lanes::float_strip_rows,
    .quantize_strip = quantize_strip<lanes>,
    .interleave_strip = interleave_strip<lanes>,
    .product = product<lanes>,
    .rms_norm = rms_norm<lanes>,
    .rope_store = rope_store<lanes>,
    .attend = attend<lanes>,
    .training = &training_of<lanes>,
    .peak_bytes = peak_bytes<lanes>,
    .peak_floats = peak_floats<lanes>,
    .peak_byte_operations = peak_sums / lanes::registers_per_value * 64 * 2,
    .peak_float_operations = peak_sums / lanes::registers_per_value * 16 * 2,
};

}  // namespace tandem::kernels::cpu
