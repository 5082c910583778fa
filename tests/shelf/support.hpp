// A head's model and checkpoints, and a node's cache that is filled from them.
#pragma once

#include "runtime/shelf/cache.hpp"
#include "runtime/shelf/shelf.hpp"
#include "tests/support/temporary_folder.hpp"

#include <catch2/catch.hpp>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace tandem::test {

namespace fs = std::filesystem;

// So many bytes, of which no stretch is like another.
inline std::string filling(std::size_t bytes, unsigned seed = 1) {
  std::string text(bytes, ' ');
  std::uint64_t state = seed;
  for (char& c : text) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    c = static_cast<char>(state >> 56);
  }
  return text;
}

inline std::string text_in(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

struct head_files {
  temporary_folder home;
  shelf::shelf_roots roots{home.path() / "models" / "tiny", home.path() / "jobs"};
  fs::path checkpoint = roots.jobs / "ftjob-1" / "checkpoints" / "step-00000012";

  head_files() {
    write(roots.model / "config.json", "{}");
    write(roots.model / "empty.json", "");
    write(roots.model / "model.safetensors", filling(100'000));
    write(roots.model / "README.md", "not read by a device");
    write(roots.model / ".git" / "config.json", "nor this");
    write(checkpoint / "checkpoint.json", "{}");
    write(checkpoint / "parameters.f32", filling(4000, 2));
    write(checkpoint / "first_moments.f32", filling(4000, 3));
    write(checkpoint / "second_moments.f32", filling(4000, 4));
  }

  shelf::shelf_entry open(const fs::path& path, shelf::purpose what) {
    auto entry = shelf::shelf_entry::open(roots, path.string(), what);
    INFO((entry ? "" : entry.error().detail));
    REQUIRE(entry);
    shelf::known_hashes known;
    for (auto done = entry->hash_some(known); !*done; done = entry->hash_some(known)) REQUIRE(done);
    return *std::move(entry);
  }
  shelf::shelf_entry open_model() { return open(roots.model, shelf::purpose::model); }
};

// Until it is whole, or so many pieces have come.
inline result<void> fill(shelf::incoming& coming, const shelf::shelf_entry& from,
                         int pieces_max = 1'000'000, std::uint64_t piece_bytes = 9000) {
  for (auto looked = coming.look(); !*looked; looked = coming.look())
    if (!looked) return looked.error();
  for (int i = 0; i < pieces_max && !coming.is_whole(); ++i) {
    const auto piece = coming.next(piece_bytes);
    REQUIRE(piece);
    std::vector<std::byte> bytes(piece->bytes);
    if (auto read = from.read(piece->file, piece->offset, bytes); !read) return read;
    if (auto appended = coming.append(bytes); !appended) return appended;
  }
  return {};
}

}  // namespace tandem::test
