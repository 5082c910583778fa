#include "runtime/text/bpe.hpp"

#include "runtime/text/utf8.hpp"

#include <algorithm>
#include <map>
#include <queue>

namespace tandem::text {
namespace {

constexpr std::uint32_t none = UINT32_MAX;
// Up to here the best pair is found by looking at all of them, which fits one cache line or two.
constexpr std::size_t short_word_symbols = 32;
// A word this long is rare; its memory is not kept.
constexpr std::size_t kept_symbols = 1 << 16;

}  // namespace

// The symbols of a piece: ids, the places where they begin in the piece, and, for long ones, links.
struct bpe::word {
  std::string_view text;
  std::vector<token_id> ids;
  std::vector<std::uint32_t> begins;  // one more than ids: the last is the end
  std::vector<merge> pairs;           // short words: of symbols i and i + 1
  std::vector<std::uint32_t> next;    // long words; the symbol merged away has next == itself
  std::vector<std::uint32_t> previous;

  void add(token_id id, std::size_t begin) {
    ids.push_back(id);
    begins.push_back(static_cast<std::uint32_t>(begin));
  }
};

bpe::bpe(parts p)
    : parts_(std::move(p)),
      whole_(std::make_unique<std::atomic<whole>[]>(parts_.vocabulary_size)) {}

void bpe::encode(std::string_view piece, std::vector<token_id>& out) const {
  if (parts_.space.empty()) return encode_cut(piece, out);
  std::size_t begin = 0;
  for (std::size_t at = 0; (at = piece.find(parts_.space, at)) != std::string_view::npos;
       at += parts_.space.size()) {
    if (at == begin || parts_.before_space.contains(character_before(piece, at))) continue;
    encode_cut(piece.substr(begin, at - begin), out);
    begin = at;
  }
  encode_cut(piece.substr(begin), out);
}

void bpe::encode_cut(std::string_view piece, std::vector<token_id>& out) const {
  if (piece.empty()) return;
  const bool plain = parts_.continuing_prefix.empty() && parts_.end_suffix.empty();
  const token_id same = plain || parts_.ignore_merges ? parts_.pieces.find(piece) : no_token;
  if (same != no_token) {
    if (parts_.ignore_merges) return out.push_back(same);
    if (whole_[same].load(std::memory_order_relaxed) == whole::one_token) return emit(same, out);
  }
  ensure(piece.size() < none, "a piece of 4 GiB");
  thread_local word w;
  w.text = piece;
  w.ids.clear();
  w.begins.clear();
  read_symbols(piece, w);
  if (w.ids.size() <= short_word_symbols) {
    merge_short(w);
  } else {
    merge_long(w);
  }
  if (same != no_token) {
    whole_[same].store(w.ids.size() == 1 && w.ids[0] == same ? whole::one_token : whole::several,
                       std::memory_order_relaxed);
  }
  for (std::size_t i = 0; i < w.ids.size(); ++i) {
    if (w.ids[i] != no_token) {
      emit(w.ids[i], out);
      continue;
    }
    // Merging by text only: a character without a token.
    for (std::size_t at = w.begins[i]; at < w.begins[i + 1]; ++at) {
      const token_id byte = parts_.byte_ids[static_cast<unsigned char>(piece[at])];
      if (parts_.byte_fallback && byte != no_token) {
        out.push_back(byte);
      } else if (parts_.unknown) {
        out.push_back(*parts_.unknown);
        break;
      }
    }
  }
  if (w.ids.capacity() > kept_symbols || w.next.capacity() > kept_symbols) w = {};
}

void bpe::emit(token_id id, std::vector<token_id>& out) const {
  const auto control = parts_.control_parts.find(id);
  if (control == parts_.control_parts.end()) return out.push_back(id);
  emit(control->second.first, out);
  emit(control->second.second, out);
}

void bpe::read_symbols(std::string_view piece, word& w) const {
  if (parts_.reads_bytes) {
    bool last_unknown = false;
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const token_id id = parts_.byte_ids[static_cast<unsigned char>(piece[i])];
      if (id != no_token) {
        w.add(id, i);
      } else if (parts_.unknown && !(last_unknown && parts_.fuse_unknown)) {
        w.add(*parts_.unknown, i);
      }
      last_unknown = id == no_token;
    }
  } else {
    std::optional<text_range> unknown;
    for (std::size_t at = 0; at < piece.size();) {
      const text_range character{at, at + utf8_length(piece[at])};
      read_character(piece, character, w, unknown);
      at = character.end;
    }
    if (unknown) w.add(*parts_.unknown, unknown->begin);
  }
  w.begins.push_back(static_cast<std::uint32_t>(piece.size()));
}

// `unknown`: the run of unknown characters that stands before and is not yet written.
void bpe::read_character(std::string_view piece, text_range at, word& w,
                         std::optional<text_range>& unknown) const {
  const auto flush = [&] {
    if (unknown) w.add(*parts_.unknown, unknown->begin);
    unknown.reset();
  };
  const std::string_view character = slice(piece, at);
  token_id id = no_token;
  if (parts_.continuing_prefix.empty() && parts_.end_suffix.empty()) {
    id = parts_.pieces.find(character);
  } else {
    std::string spelling;
    if (at.begin > 0) spelling += parts_.continuing_prefix;
    spelling += character;
    if (at.end == piece.size()) spelling += parts_.end_suffix;
    id = parts_.pieces.find(spelling);
  }
  if (id != no_token || parts_.merge_by_text) {
    flush();
    return w.add(id, at.begin);
  }
  const auto byte_id = [&](char c) { return parts_.byte_ids[static_cast<unsigned char>(c)]; };
  if (parts_.byte_fallback && std::none_of(character.begin(), character.end(),
                                           [&](char c) { return byte_id(c) == no_token; })) {
    for (std::size_t i = 0; i < character.size(); ++i) w.add(byte_id(character[i]), at.begin + i);
    return;
  }
  if (!parts_.unknown) return;
  if (unknown && parts_.fuse_unknown) {
    unknown->end = at.end;
    return;
  }
  flush();
  unknown = at;
}

merge bpe::find_merge(const word& w, std::size_t left, std::size_t right) const {
  if (!parts_.merge_by_text) return parts_.merges.find(w.ids[left], w.ids[right]);
  const std::size_t after = w.next.empty() ? right + 1 : w.next[right];
  const std::size_t end = w.begins[after == none ? w.begins.size() - 1 : after];
  const token_id id = parts_.pieces.find(w.text.substr(w.begins[left], end - w.begins[left]));
  if (id == no_token) return {};
  return {parts_.ranks[id], id};
}

void bpe::merge_short(word& w) const {
  w.next.clear();
  w.pairs.clear();
  for (std::size_t i = 0; i + 1 < w.ids.size(); ++i) w.pairs.push_back(find_merge(w, i, i + 1));
  while (!w.pairs.empty()) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < w.pairs.size(); ++i) {
      if (w.pairs[i].rank < w.pairs[best].rank) best = i;
    }
    if (!w.pairs[best].found()) return;
    const auto at = static_cast<std::ptrdiff_t>(best);
    w.ids[best] = w.pairs[best].id;
    w.ids.erase(w.ids.begin() + at + 1);
    w.begins.erase(w.begins.begin() + at + 1);
    w.pairs.erase(w.pairs.begin() + at);
    if (best > 0) w.pairs[best - 1] = find_merge(w, best - 1, best);
    if (best < w.pairs.size()) w.pairs[best] = find_merge(w, best, best + 1);
  }
}

// One bucket of places a rank, lowest rank first. Within a rank the places go from left to right:
// those known when the bucket was opened lie sorted, later ones in a heap. So a run of ten million
// equal letters, whose pairs have all one rank, costs no more than a walk over it.
void bpe::merge_long(word& w) const {
  struct bucket {
    std::vector<std::uint32_t> places;
    std::size_t done = 0;
    bool open = false;
    std::priority_queue<std::uint32_t, std::vector<std::uint32_t>, std::greater<>> late;

    bool empty() const { return done == places.size() && late.empty(); }
    void add(std::uint32_t place) {
      if (open) {
        late.push(place);
      } else {
        places.push_back(place);
      }
    }
    std::uint32_t take() {
      if (!open) std::sort(places.begin(), places.end());
      open = true;
      const bool from_late = !late.empty() && (done == places.size() || late.top() < places[done]);
      if (!from_late) return places[done++];
      const std::uint32_t place = late.top();
      late.pop();
      return place;
    }
  };
  const std::size_t count = w.ids.size();
  w.next.resize(count);
  w.previous.resize(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    w.next[i] = i + 1 < count ? i + 1 : none;
    w.previous[i] = i > 0 ? i - 1 : none;
  }
  std::map<std::uint32_t, bucket> buckets;
  const auto offer = [&](std::uint32_t left) {
    if (left == none || w.next[left] == none) return;
    const merge m = find_merge(w, left, w.next[left]);
    if (m.found()) buckets[m.rank].add(left);
  };
  for (std::uint32_t i = 0; i + 1 < count; ++i) offer(i);

  while (!buckets.empty()) {
    const auto lowest = buckets.begin();
    if (lowest->second.empty()) {
      buckets.erase(lowest);
      continue;
    }
    const std::uint32_t left = lowest->second.take();
    const std::uint32_t right = w.next[left];
    if (right == left || right == none) continue;  // merged away, or the last
    const merge m = find_merge(w, left, right);
    if (m.rank != lowest->first) continue;  // its neighbour has changed
    w.ids[left] = m.id;
    w.next[left] = w.next[right];
    if (w.next[right] != none) w.previous[w.next[right]] = left;
    w.next[right] = right;
    offer(w.previous[left]);
    offer(left);
  }

  const std::uint32_t end = w.begins.back();
  std::size_t kept = 0;
  for (std::uint32_t i = 0; i != none;) {
    const std::uint32_t following = w.next[i];
    w.ids[kept] = w.ids[i];
    w.begins[kept++] = w.begins[i];
    i = following;
  }
  w.ids.resize(kept);
  w.begins.resize(kept + 1);
  w.begins[kept] = end;
}

}  // namespace tandem::text
