// checkpoint.json: what a checkpoint says about itself and its files, with a checksum of its own.
//
//   {"crc32c":"0123abcd","checkpoint":{"version":1,"job":…,"files":[{"name","bytes","crc32c":[…]}],…}}
//
// The first checksum is over the bytes of the "checkpoint" object as they stand; a file has one for
// each piece of `piece_bytes`, so that a shard is checked without reading the rest.
#pragma once

#include "runtime/result.hpp"
#include "runtime/train/checkpoint.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::train {

inline constexpr std::string_view record_name = "checkpoint.json";
inline constexpr std::string_view parameters_name = "parameters.f32";
inline constexpr std::string_view first_moments_name = "first_moments.f32";
inline constexpr std::string_view second_moments_name = "second_moments.f32";
inline constexpr std::size_t piece_bytes = std::size_t{16} << 20;

struct file_record {
  std::string name;
  std::uint64_t bytes = 0;
  std::vector<std::uint32_t> crc32c;  // of each piece; the last may be shorter
  bool operator==(const file_record&) const = default;
};

struct checkpoint_record {
  checkpoint_facts facts;
  std::vector<file_record> files;
  const file_record* file(std::string_view name) const;
};

std::string encode(const checkpoint_record& record);
// Refuses (bad_file, unsupported) whatever is not just what `encode` writes.
result<checkpoint_record> decode(std::string_view text);

}  // namespace tandem::train
