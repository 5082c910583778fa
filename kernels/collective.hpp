// The ranks that hold one model together, each with its own backend, meet here. Every rank asks for
// the same operations in the same order, from its own thread; an operation is queued like an op of
// that rank's backend: what it makes is there for the ops asked for after it, and what it reads
// may be overwritten by them.
//
// No operation lets a library choose the order of a sum: numbers are moved, and added in the
// balanced tree over ranks, sum(b, e) = sum(b, (b+e)/2) + sum((b+e)/2, e), so that every rank has
// the same bits in every run.
//
// A rank that is lost ends the others' wait, with an exception or with the process, as a device's
// own error does (cuda_device.hpp): ranks of one model live and die together.
#pragma once

#include "kernels/backend.hpp"

#include <cstdint>
#include <span>

namespace tandem::kernels {

class collective {
 public:
  virtual ~collective() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // whole_TX: side by side every rank's part_TXr, rank 0's columns first. columns_R[r] is how many
  // rank r has (may be 0); the own part has columns_R[rank()]. Rows are the same on every rank. The
  // part may lie in whole_TX already, in its own place.
  virtual void gather_columns(rows_in part_TXr, std::span<const std::int64_t> columns_R,
                              rows_out whole_TX) = 0;

  // x_TX becomes the sum of every rank's x_TX.
  virtual void sum(rows_out x_TX) = 0;

  // Whether these operations may stand in a program (backend::begin_program).
  virtual bool in_programs() const { return false; }
};

}  // namespace tandem::kernels
