// tensor_names.cpp - the names of each role in GGUF and in Hugging Face's checkpoints.
#include "model/tensor_names.h"

#include "minillm/error.h"

namespace minillm {
namespace {

struct LayerName {
  LayerTensor tensor;
  std::string_view gguf, hugging_face;
};

constexpr LayerName kLayerNames[] = {
    {LayerTensor::kAttentionNorm, "attn_norm.weight", "input_layernorm.weight"},
    {LayerTensor::kQ, "attn_q.weight", "self_attn.q_proj.weight"},
    {LayerTensor::kK, "attn_k.weight", "self_attn.k_proj.weight"},
    {LayerTensor::kV, "attn_v.weight", "self_attn.v_proj.weight"},
    {LayerTensor::kQBias, "attn_q.bias", "self_attn.q_proj.bias"},
    {LayerTensor::kKBias, "attn_k.bias", "self_attn.k_proj.bias"},
    {LayerTensor::kVBias, "attn_v.bias", "self_attn.v_proj.bias"},
    {LayerTensor::kQNorm, "attn_q_norm.weight", "self_attn.q_norm.weight"},
    {LayerTensor::kKNorm, "attn_k_norm.weight", "self_attn.k_norm.weight"},
    {LayerTensor::kAttentionOutput, "attn_output.weight", "self_attn.o_proj.weight"},
    {LayerTensor::kPostAttentionNorm, "post_attention_norm.weight", "post_attention_layernorm.weight"},
    {LayerTensor::kFfnNorm, "ffn_norm.weight", "post_attention_layernorm.weight"},
    {LayerTensor::kGate, "ffn_gate.weight", "mlp.gate_proj.weight"},
    {LayerTensor::kUp, "ffn_up.weight", "mlp.up_proj.weight"},
    {LayerTensor::kDown, "ffn_down.weight", "mlp.down_proj.weight"},
    {LayerTensor::kPostFfnNorm, "post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
};

}  // namespace

std::string TensorNames::embedding() const { return gguf_ ? "token_embd.weight" : "model.embed_tokens.weight"; }
std::string TensorNames::output() const { return gguf_ ? "output.weight" : "lm_head.weight"; }
std::string TensorNames::final_norm() const { return gguf_ ? "output_norm.weight" : "model.norm.weight"; }

std::string TensorNames::layer(int64_t index, LayerTensor tensor) const {
  const std::string prefix = (gguf_ ? "blk." : "model.layers.") + std::to_string(index) + ".";
  if (!gguf_ && post_norms_ && tensor == LayerTensor::kFfnNorm) return prefix + "pre_feedforward_layernorm.weight";
  for (const LayerName& name : kLayerNames)
    if (name.tensor == tensor) return prefix + std::string(gguf_ ? name.gguf : name.hugging_face);
  throw Error(ErrorCode::kInternal, "layer tensor ", static_cast<int>(tensor), " has no name");
}

bool TensorNames::ignorable(std::string_view name) const { return name.ends_with("rotary_emb.inv_freq"); }
bool TensorNames::is_copy_of_tied_table(std::string_view name) const { return !gguf_ && name == output(); }

}  // namespace minillm
