// What attention and products of training ask of the tensor cores: matrices of sixteen-bit numbers
// out of shared memory and into it.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace tandem::kernels::cuda {

// An address within shared memory, as the instructions below take it.
__device__ inline unsigned shared_address(const void* at) {
  return static_cast<unsigned>(__cvta_generic_to_shared(at));
}
__device__ inline void load_matrices(std::uint32_t (&to)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices(std::uint32_t (&to)[4], const void* row) {
  load_matrices(to, shared_address(row));
}
__device__ inline void load_matrices_turned(std::uint32_t (&to)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices_turned(std::uint32_t (&to)[4], const void* row) {
  load_matrices_turned(to, shared_address(row));
}
// c += a b, 16 x 16 times 16 x 8.
__device__ inline void multiply(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline std::uint32_t packed_halves(float low, float high) {
  const half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&both);
}

// 16 bytes to shared memory, zeros where there is nothing to read.
__device__ inline void copy_16(unsigned address, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(address), "l"(from), "r"(there ? 16 : 0)
               : "memory");
}
__device__ inline void copy_16(void* to, const void* from, bool there) {
  copy_16(shared_address(to), from, there);
}
__device__ inline void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All but the last group have arrived, and every thread knows.
__device__ inline void await_copies() {
  asm volatile("cp.async.wait_group 1;" ::: "memory");
  __syncthreads();
}

}  // namespace tandem::kernels::cuda
