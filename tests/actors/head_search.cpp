// Which heads a node asks to let it in.
#include "actors/head_search.hpp"

#include <catch2/catch.hpp>

#include <string>
#include <vector>

using namespace tandem;
using actors::head_search;
using list = std::vector<std::string>;

TEST_CASE("addresses of heads are read with commas, each once, and a bad one is named") {
  const auto two = actors::parse_heads("127.0.0.1:7000,127.0.0.1:7001,127.0.0.1:7000");
  REQUIRE(two);
  CHECK(*two == list{"127.0.0.1:7000", "127.0.0.1:7001"});
  for (const auto* bad : {"", ",127.0.0.1:7000", "127.0.0.1:7000,", "127.0.0.1:7000,127.0.0.1"})
    CHECK_FALSE(actors::parse_heads(bad));
  std::string many = "127.0.0.1:1";
  for (std::size_t port = 2; port <= actors::heads_asked_max + 1; ++port)
    many += ",127.0.0.1:" + std::to_string(port);
  CHECK(actors::parse_heads(many).error().detail == "65 addresses of heads: 64 are allowed");
}

TEST_CASE("a node asks the heads it was told of by the one it was in, beside those it was given") {
  head_search search({"a:1", "b:1"});
  CHECK(search.addresses() == list{"a:1", "b:1"});
  search.told("a:1", {"b:1", "c:1"});
  CHECK(search.addresses() == list{"a:1", "b:1", "c:1"});
  search.told("c:1", {});  // it follows: nobody stands by for this one yet
  CHECK(search.addresses() == list{"a:1", "b:1", "c:1"});
  search.told("b:1", {"d:1"});
  CHECK(search.addresses() == list{"a:1", "b:1", "d:1"});
}

TEST_CASE("however many heads are told of, a bounded number is asked") {
  list many;
  for (int port = 1; port <= 200; ++port) many.push_back("h:" + std::to_string(port));
  head_search search({"a:1"});
  search.told("a:1", many);
  CHECK(search.addresses().size() == actors::heads_asked_max);
  CHECK(search.addresses().front() == "a:1");
}

TEST_CASE("a round that found no head names each address with its reason") {
  CHECK(actors::nobody_leads({{"a:1", "a:1: cannot reach it"}}) == "a:1: cannot reach it");
  CHECK(actors::nobody_leads({{"a:1", "a:1: cannot reach it"}, {"b:1", "the name is taken"}}) ==
        "a:1: cannot reach it; b:1: the name is taken");
}
