// attention_panels.h - where a task's keys and values are, in whole panels of 16: in pages as they are stored, or in float32
// in the thread's scratch; and what to fetch while they are read.
#pragma once

#include <cstdint>

#include "backend/cpu/attention_tile.h"

namespace minillm::cpu {

/// Whether a task reads 16-bit keys and values as they are stored, once, converting in registers and fetching ahead of itself.
/// Tasks with more rows convert them once, into scratch, and use them many times.
inline bool reads_directly(const AttentionJob& job, const AttentionTask& task) {
  return task.n_rows <= kOnePassRows && job.kv.storage != nullptr;
}

/// Panels [first, first + n) of the keys (transposed) or values (rows) of one (sequence, key/value head).
struct PanelSet {
  const void* panels[kSlicePanels];
  int64_t n = 0;
  int64_t stride = 0;  ///< Values: elements from row to row.
  KvElement element = KvElement::kF32;
};
/// `widen` converts 16-bit elements into `scratch` once, for tiles that use them many times; the conversion is exact.
PanelSet key_panels(const AttentionJob& job, const AttentionTask& task, int64_t first, int64_t n, bool widen, float* scratch);
PanelSet value_panels(const AttentionJob& job, const AttentionTask& task, int64_t first, int64_t n, bool widen, float* scratch);

/// What to fetch while `now`, panels [first, ...) of the task, is read: the same of the next block, or of the first block of the
/// task that this thread is likely to get next; `now` itself where there is nothing. As many panels as `now`.
PanelSet panels_to_fetch(const AttentionJob& job, const AttentionTask& task, int64_t first, const PanelSet& now, bool keys);

}  // namespace minillm::cpu
