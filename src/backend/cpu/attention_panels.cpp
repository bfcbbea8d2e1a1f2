// attention_panels.cpp - page lookup, conversion to float32, packing of dense rows.
#include "backend/cpu/attention_panels.h"

#include <algorithm>

#include "base/bytes.h"

namespace minillm::cpu {
namespace {

/// Panels [first, first + n) of the task's keys, or values, where they lie in the pages.
void find_panels(const AttentionJob& job, const AttentionTask& task, int64_t first, int64_t n, bool keys, const void** panels) {
  const CpuKvStorage& storage = *job.kv.storage;
  const int32_t* pages = job.sequences[static_cast<size_t>(task.sequence)].pages;
  const int64_t per_page = storage.panels_per_page(), bytes = keys ? storage.key_panel_bytes() : storage.value_panel_bytes();
  int64_t page = first / per_page, in_page = first % per_page;
  for (int64_t i = 0; i < n; ++page, in_page = 0) {
    const std::byte* base =
        keys ? storage.keys_of(job.kv.layer, pages[page], task.kv_head) : storage.values_of(job.kv.layer, pages[page], task.kv_head);
    for (; in_page < per_page && i < n; ++in_page) panels[i++] = base + in_page * bytes;
  }
}

/// Converts panels of `panel_elements` in `set` to float32 in `scratch`.
void widen_panels(const AttentionJob& job, PanelSet& set, int64_t panel_elements, float* scratch) {
  for (int64_t i = 0; i < set.n; ++i) {
    float* copy = scratch + i * panel_elements;
    job.kernels->widen[static_cast<size_t>(job.kv.element)](copy, set.panels[i], panel_elements);
    set.panels[i] = copy;
  }
  set.element = KvElement::kF32;
}

/// Row `key` of one head of a dense tensor [B, Sk, G, D].
const float* dense_row(const AttentionJob& job, const AttentionTask& task, const float* tensor, int64_t key) {
  const AttentionSequence& sequence = job.sequences[static_cast<size_t>(task.sequence)];
  const int64_t n_keys = sequence.offset + sequence.n_rows;
  return tensor + ((task.sequence * n_keys + key) * job.params->n_kv_heads + task.kv_head) * job.head_dim();
}

/// Keys of panel `panel` that exist on dense tensors.
int64_t dense_keys(const AttentionJob& job, const AttentionTask& task, int64_t panel) {
  const AttentionSequence& sequence = job.sequences[static_cast<size_t>(task.sequence)];
  return std::min(kKeyPanel, sequence.offset + sequence.n_rows - panel * kKeyPanel);
}

}  // namespace

PanelSet key_panels(const AttentionJob& job, const AttentionTask& task, int64_t first, int64_t n, bool widen, float* scratch) {
  PanelSet set;
  set.n = n;
  set.element = job.kv.element;
  if (job.kv.storage != nullptr) {
    find_panels(job, task, first, n, true, set.panels);
    if (widen && set.element != KvElement::kF32) widen_panels(job, set, kKeyPanel * job.head_dim(), scratch);
    return set;
  }
  const int64_t stride = job.params->n_kv_heads * job.head_dim();
  for (int64_t i = 0; i < n; ++i) {
    float* copy = scratch + i * kKeyPanel * job.head_dim();
    const float* rows = dense_row(job, task, job.kv.dense_k, (first + i) * kKeyPanel);
    job.kernels->pack_panel(copy, rows, stride, dense_keys(job, task, first + i), job.head_dim());
    set.panels[i] = copy;
  }
  return set;
}

PanelSet value_panels(const AttentionJob& job, const AttentionTask& task, int64_t first, int64_t n, bool widen, float* scratch) {
  const int64_t width = job.padded_width();
  PanelSet set;
  set.n = n;
  set.element = job.kv.element;
  set.stride = width;
  if (job.kv.storage != nullptr) {
    find_panels(job, task, first, n, false, set.panels);
    if (widen && set.element != KvElement::kF32) widen_panels(job, set, kKeyPanel * width, scratch);
    return set;
  }
  // Rows are read in whole vectors, and none past the last key: those without padding are used where they are.
  const int64_t stride = job.params->n_kv_heads * job.head_dim();
  const bool in_place = width == job.head_dim();
  if (in_place) set.stride = stride;
  for (int64_t i = 0; i < n; ++i) {
    const float* rows = dense_row(job, task, job.kv.dense_v, (first + i) * kKeyPanel);
    float* copy = scratch + i * kKeyPanel * width;
    set.panels[i] = in_place ? rows : copy;
    for (int64_t s = 0; !in_place && s < dense_keys(job, task, first + i); ++s)
      std::copy_n(rows + s * stride, job.head_dim(), copy + s * width);
  }
  return set;
}

PanelSet panels_to_fetch(const AttentionJob& job, const AttentionTask& task, int64_t first, const PanelSet& now, bool keys) {
  const auto end_of = [&](const AttentionTask& t) {  // One past the last panel.
    const AttentionSequence& sequence = job.sequences[static_cast<size_t>(t.sequence)];
    return ceil_div(std::min(sequence.offset + sequence.n_rows, t.run_end * job.run_tokens()), kKeyPanel);
  };
  const int64_t per_block = job.params->block_size / kKeyPanel;
  const AttentionTask* from = &task;
  first += per_block;
  if (first >= end_of(task)) {
    // Threads take tasks in order, so that about n_threads later this one is free again.
    if (job.tasks.empty()) return now;
    const int64_t later = &task - job.tasks.data() + job.n_threads;
    if (later < 0 || later >= static_cast<int64_t>(job.tasks.size())) return now;
    from = &job.tasks[static_cast<size_t>(later)];
    first = from->run_begin * job.run_tokens() / kKeyPanel + first % per_block;
  }
  const int64_t left = end_of(*from) - first;
  if (left <= 0) return now;
  PanelSet set;
  set.n = std::min(now.n, left);
  find_panels(job, *from, first, set.n, keys, set.panels);
  for (; set.n < now.n; ++set.n) set.panels[set.n] = set.panels[set.n - 1];
  if (!keys || set.n != kSlicePanels) return set;
  // Half of the panels are read at a time. Every second one is fetched meanwhile: streams that lie 4 KiB apart rather than 2.
  PanelSet spread = set;
  for (int64_t i = 0; i < set.n; ++i) spread.panels[i] = set.panels[i < set.n / 2 ? 2 * i : 2 * i - set.n + 1];
  return spread;
}

}  // namespace minillm::cpu
