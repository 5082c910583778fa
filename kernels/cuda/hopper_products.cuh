// Products of numbers rounded to bfloat16 by Hopper's wgmma, operands brought by its copy engine.
// What they come to is what rounded_products.cuh says; the bits are this chip's own.
#pragma once

#include "kernels/cuda/rounded_products.cuh"

namespace tandem::kernels::cuda {

// Whether this GPU has wgmma.
bool has_wgmma(int gpu);

// y = x w^T + bias, or y += ... when `add`. Behind w's rows stand those that pad them.
void hopper_product(const rounded_rows& x_TX, const rounded_rows& w_YX, const float* bias_Y,
                    bool add, rows_out y_TY, int multiprocessors, cudaStream_t stream);
// dx = dy w, or dx += ... when `add`.
void hopper_product_backward(const rounded_rows& dy_TY, const rounded_rows& w_YX, bool add,
                             rows_out dx_TX, int multiprocessors, cudaStream_t stream);

// Room that the sums of slots want, in bytes, whatever the product.
std::size_t hopper_slot_room(int multiprocessors);
// Whether so many sums may wait.
bool can_add_on_hopper(const slot_program& program);
// dw += dy^T x by the slot tree; `steps` is the program's, on the device, room as above. A number
// that is not finite may reach the slot in front of its own.
void hopper_weights_backward(const rounded_rows& dy_TY, const rounded_rows& x_TX,
                             const slot_step* steps, const slot_program& program,
                             const packed_matrix& dw_YX, float* room, int multiprocessors,
                             cudaStream_t stream);

}  // namespace tandem::kernels::cuda
