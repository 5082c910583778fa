// The numbers that GGUF files use for types of values and tensors (ggml-org/ggml, docs/gguf.md).
#pragma once

#include "kernels/backend.hpp"

#include <array>
#include <cstdint>
#include <string_view>

namespace tandem::formats {

enum value_type : std::uint32_t {
  type_uint8,
  type_int8,
  type_uint16,
  type_int16,
  type_uint32,
  type_int32,
  type_float32,
  type_bool,
  type_string,
  type_array,
  type_uint64,
  type_int64,
  type_float64,
  type_count
};

struct ggml_type {
  std::uint32_t number;
  std::string_view name;
  bool supported;
  kernels::source_format format;
};
using sf = kernels::source_format;
inline constexpr std::array ggml_types{
    ggml_type{0, "F32", true, sf::f32},       ggml_type{1, "F16", true, sf::f16},
    ggml_type{2, "Q4_0", true, sf::q4_0},     ggml_type{3, "Q4_1", true, sf::q4_1},
    ggml_type{6, "Q5_0", true, sf::q5_0},     ggml_type{7, "Q5_1", true, sf::q5_1},
    ggml_type{8, "Q8_0", true, sf::q8_0},     ggml_type{9, "Q8_1", false, sf::f32},
    ggml_type{10, "Q2_K", false, sf::f32},    ggml_type{11, "Q3_K", false, sf::f32},
    ggml_type{12, "Q4_K", true, sf::q4_k},    ggml_type{13, "Q5_K", true, sf::q5_k},
    ggml_type{14, "Q6_K", true, sf::q6_k},    ggml_type{15, "Q8_K", false, sf::f32},
    ggml_type{16, "IQ2_XXS", false, sf::f32}, ggml_type{17, "IQ2_XS", false, sf::f32},
    ggml_type{18, "IQ3_XXS", false, sf::f32}, ggml_type{19, "IQ1_S", false, sf::f32},
    ggml_type{20, "IQ4_NL", false, sf::f32},  ggml_type{21, "IQ3_S", false, sf::f32},
    ggml_type{22, "IQ2_S", false, sf::f32},   ggml_type{23, "IQ4_XS", false, sf::f32},
    ggml_type{24, "I8", false, sf::f32},      ggml_type{25, "I16", false, sf::f32},
    ggml_type{26, "I32", false, sf::f32},     ggml_type{27, "I64", false, sf::f32},
    ggml_type{28, "F64", false, sf::f32},     ggml_type{29, "IQ1_M", false, sf::f32},
    ggml_type{30, "BF16", true, sf::bf16},    ggml_type{34, "TQ1_0", false, sf::f32},
    ggml_type{35, "TQ2_0", false, sf::f32},   ggml_type{39, "MXFP4", false, sf::f32},
};

}  // namespace tandem::formats
