"""Architectures of transformers, tiny and with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .entries import (
    VOCABULARY,
    Entry,
    Inputs,
    hugging_face,
    ids,
    image,
    pairs,
    text,
    text_and_image,
    wave,
)

_TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.2,
}
_TEXT = {**_SIZES, **_TOKENS, "max_position_embeddings": 64}
_GROUPED = {**_TEXT, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
_IMAGE = {**_SIZES, "image_size": 16, "patch_size": 8, "num_channels": 3}
_D_MODEL = {
    **_TOKENS,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 1,
    "init_std": 0.2,
}
_T5 = {
    **_TOKENS,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
_GPT = {**_TOKENS, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
_WAVE = {
    **_SIZES,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "layerdrop": 0.0,
    "vocab_size": 20,
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def _audio_features(frames: int, bands: int, name: str = "input_features", order: str = "bands") -> Inputs:
    def inputs(batch: int, length: int) -> dict[str, Tensor]:
        shape = (batch, bands, frames) if order == "bands" else (batch, frames, bands)
        return {name: torch.randn(*shape)}

    return inputs


def _whisper(batch: int, length: int) -> dict[str, Tensor]:
    return {
        "input_features": torch.randn(batch, 8, 24),
        "decoder_input_ids": torch.randint(3, VOCABULARY, (batch, length)),
    }


def _video(batch: int, length: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(batch, 2, 3, 16, 16)}


def _entry(
    family: str,
    kind: str,
    config: str,
    options: Mapping[str, Any],
    inputs: Inputs,
    attentions: int = 0,
    crossed: int = 0,
    **more: Any,
) -> Entry:
    return Entry(kind, family, hugging_face(kind, config, options), inputs, attentions, crossed, **more)


_CLIP_TEXT = {**_TEXT, "projection_dim": 16}
_CLIP = {
    "text_config": {**_TEXT, "projection_dim": 16},
    "vision_config": {**_IMAGE, "projection_dim": 16},
    "projection_dim": 16,
}

ENCODERS = [
    _entry("encoder", "BertForSequenceClassification", "BertConfig", _TEXT, text, 1, representative=True),
    _entry("encoder", "RobertaForSequenceClassification", "RobertaConfig", _TEXT, text, 1),
    _entry(
        "encoder",
        "AlbertModel",
        "AlbertConfig",
        {**_TEXT, "embedding_size": 16, "num_hidden_layers": 2},
        text,
        2,
    ),
    _entry(
        "encoder",
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {**_TOKENS, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48, "initializer_range": 0.2},
        text,
        1,
    ),
    _entry("encoder", "ElectraForTokenClassification", "ElectraConfig", {**_TEXT, "embedding_size": 16}, text, 1),
    _entry(
        "encoder",
        "DebertaV2Model",
        "DebertaV2Config",
        {**_TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
        text,
        1,
    ),
    _entry("encoder", "MPNetModel", "MPNetConfig", _TEXT, text, 1),
    _entry(
        "encoder",
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        {
            **_TEXT,
            "num_hidden_layers": 2,
            "local_attention": 4,
            "global_attn_every_n_layers": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
        text,
        2,
    ),
    _entry("encoder", "XLMRobertaModel", "XLMRobertaConfig", _TEXT, text, 1),
    _entry("encoder", "CamembertModel", "CamembertConfig", _TEXT, text, 1),
    _entry("encoder", "ErnieModel", "ErnieConfig", _TEXT, text, 1),
    _entry("encoder", "MegatronBertModel", "MegatronBertConfig", _TEXT, text, 1),
    _entry("encoder", "RemBertModel", "RemBertConfig", {**_TEXT, "input_embedding_size": 16}, text, 1),
    _entry("encoder", "RoFormerModel", "RoFormerConfig", _TEXT, text, 1),
    _entry("encoder", "ConvBertModel", "ConvBertConfig", {**_TEXT, "embedding_size": 32, "head_ratio": 1}, text, 1),
    _entry("encoder", "SqueezeBertModel", "SqueezeBertConfig", {**_TEXT, "embedding_size": 32}, text, 1),
    _entry(
        "encoder",
        "MobileBertModel",
        "MobileBertConfig",
        {**_TEXT, "embedding_size": 32, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
        text,
        1,
    ),
    _entry("encoder", "FNetModel", "FNetConfig", _TEXT, ids, 0),
    _entry(
        "encoder",
        "NystromformerModel",
        "NystromformerConfig",
        {**_TEXT, "segment_means_seq_len": 8, "num_landmarks": 8},
        text,
        1,
        lengths=(8, 8),
    ),
    _entry("encoder", "LayoutLMModel", "LayoutLMConfig", _TEXT, text, 1),
    _entry("encoder", "EsmModel", "EsmConfig", {**_TEXT, "position_embedding_type": "rotary"}, text, 1),
    _entry(
        "encoder",
        "XLNetModel",
        "XLNetConfig",
        {**_TOKENS, "d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 48},
        text,
        1,
    ),
    _entry(
        "encoder", "LongformerModel", "LongformerConfig", {**_TEXT, "attention_window": [4]}, text, 1, rung="modules"
    ),
]

DECODERS = [
    _entry("decoder", "GPT2LMHeadModel", "GPT2Config", _GPT, text, 1),
    _entry(
        "decoder",
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {**_TEXT, "num_hidden_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4},
        text,
        2,
    ),
    _entry("decoder", "GPTJForCausalLM", "GPTJConfig", {**_GPT, "rotary_dim": 8}, text, 1),
    _entry("decoder", "GPTNeoXForCausalLM", "GPTNeoXConfig", _TEXT, text, 1),
    _entry("decoder", "LlamaForCausalLM", "LlamaConfig", _GROUPED, text, 1),
    _entry("decoder", "MistralForCausalLM", "MistralConfig", {**_GROUPED, "sliding_window": 4}, text, 1),
    _entry("decoder", "Qwen2ForCausalLM", "Qwen2Config", _GROUPED, text, 1),
    _entry("decoder", "Qwen3ForCausalLM", "Qwen3Config", _GROUPED, text, 1),
    _entry("decoder", "GemmaForCausalLM", "GemmaConfig", _GROUPED, text, 1),
    _entry("decoder", "Gemma2ForCausalLM", "Gemma2Config", {**_GROUPED, "sliding_window": 4}, text, 1),
    _entry(
        "decoder",
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**_GROUPED, "sliding_window": 4},
        text,
        1,
        representative=True,
    ),
    _entry("decoder", "PhiForCausalLM", "PhiConfig", _TEXT, text, 1),
    _entry("decoder", "Phi3ForCausalLM", "Phi3Config", _TEXT, text, 1),
    _entry("decoder", "FalconForCausalLM", "FalconConfig", {**_TEXT, "alibi": True}, text, 1),
    _entry(
        "decoder", "BloomForCausalLM", "BloomConfig", {**_TOKENS, "hidden_size": 32, "n_layer": 1, "n_head": 2}, text, 1
    ),
    _entry("decoder", "MptForCausalLM", "MptConfig", {**_TOKENS, "d_model": 32, "n_layers": 1, "n_heads": 2}, text, 1),
    _entry(
        "decoder",
        "OPTForCausalLM",
        "OPTConfig",
        {**_TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32},
        text,
        1,
    ),
    _entry("decoder", "StableLmForCausalLM", "StableLmConfig", {**_TEXT, "num_key_value_heads": 2}, text, 1),
    _entry("decoder", "OlmoForCausalLM", "OlmoConfig", _TEXT, text, 1),
    _entry("decoder", "CohereForCausalLM", "CohereConfig", _TEXT, text, 1),
    _entry("decoder", "BioGptForCausalLM", "BioGptConfig", _TEXT, text, 1),
    _entry("decoder", "CTRLLMHeadModel", "CTRLConfig", {**_GPT, "dff": 48}, text, 1),
    _entry("decoder", "OpenAIGPTLMHeadModel", "OpenAIGPTConfig", _GPT, text, 1),
    _entry("decoder", "GPTBigCodeForCausalLM", "GPTBigCodeConfig", {**_GPT, "multi_query": True}, text, 1),
]

ENCODER_DECODERS = [
    _entry("encoder-decoder", "T5ForConditionalGeneration", "T5Config", _T5, pairs, 2, 1, representative=True),
    _entry("encoder-decoder", "MT5Model", "MT5Config", _T5, pairs, 2, 1),
    _entry("encoder-decoder", "BartForConditionalGeneration", "BartConfig", _D_MODEL, pairs, 2, 1),
    _entry("encoder-decoder", "PegasusModel", "PegasusConfig", _D_MODEL, pairs, 2, 1),
    _entry("encoder-decoder", "MarianMTModel", "MarianConfig", {**_D_MODEL, "decoder_vocab_size": 99}, pairs, 2, 1),
    _entry("encoder-decoder", "MBartModel", "MBartConfig", _D_MODEL, pairs, 2, 1),
    _entry("encoder-decoder", "BlenderbotSmallModel", "BlenderbotSmallConfig", _D_MODEL, pairs, 2, 1),
    _entry(
        "encoder-decoder",
        "ProphetNetModel",
        "ProphetNetConfig",
        {
            **_TOKENS,
            "hidden_size": 32,
            "num_encoder_layers": 1,
            "num_decoder_layers": 1,
            "num_encoder_attention_heads": 2,
            "num_decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 64,
            "decoder_start_token_id": 1,
        },
        pairs,
        3,
        1,
    ),
]

VISION = [
    _entry("vision", "ViTForImageClassification", "ViTConfig", _IMAGE, image(16), 1, representative=True),
    _entry("vision", "DeiTForImageClassification", "DeiTConfig", _IMAGE, image(16), 1),
    _entry("vision", "BeitModel", "BeitConfig", {**_IMAGE, "use_relative_position_bias": True}, image(16), 1),
    _entry("vision", "Dinov2Model", "Dinov2Config", _IMAGE, image(16), 1),
    _entry(
        "vision",
        "SwinForImageClassification",
        "SwinConfig",
        {
            "image_size": 16,
            "patch_size": 2,
            "embed_dim": 16,
            "depths": [2, 1],
            "num_heads": [2, 2],
            "window_size": 2,
            "num_channels": 3,
        },
        image(16),
        3,
    ),
    _entry(
        "vision",
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2},
        image(32),
    ),
    _entry(
        "vision",
        "ResNetForImageClassification",
        "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
        image(32),
    ),
    _entry(
        "vision",
        "SegformerForImageClassification",
        "SegformerConfig",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [2, 1],
            "hidden_sizes": [8, 16],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
        },
        image(32),
        1,
        1,
    ),
    _entry(
        "vision",
        "PoolFormerForImageClassification",
        "PoolFormerConfig",
        {
            "depths": [1, 1],
            "hidden_sizes": [8, 16],
            "num_encoder_blocks": 2,
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "padding": [2, 1],
        },
        image(32),
    ),
    _entry("vision", "VideoMAEModel", "VideoMAEConfig", {**_IMAGE, "num_frames": 2, "tubelet_size": 2}, _video, 1),
    _entry(
        "vision",
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        {"depth_multiplier": 0.25, "image_size": 32},
        image(32),
    ),
]

AUDIO = [
    _entry("audio", "Wav2Vec2Model", "Wav2Vec2Config", _WAVE, wave(400), 1, input_gradients=False, representative=True),
    _entry("audio", "HubertModel", "HubertConfig", _WAVE, wave(400), 1, input_gradients=False),
    _entry("audio", "WavLMModel", "WavLMConfig", {**_WAVE, "num_buckets": 16}, wave(400), 1, input_gradients=False),
    _entry("audio", "SEWModel", "SEWConfig", {**_WAVE, "squeeze_factor": 2}, wave(400), 1, input_gradients=False),
    _entry(
        "audio",
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        {
            **_D_MODEL,
            "num_mel_bins": 8,
            "max_source_positions": 12,
            "max_target_positions": 32,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
        _whisper,
        2,
        1,
    ),
    _entry(
        "audio",
        "ASTForAudioClassification",
        "ASTConfig",
        {**_SIZES, "patch_size": 8, "frequency_stride": 8, "time_stride": 8, "max_length": 16, "num_mel_bins": 16},
        _audio_features(16, 16, "input_values", "frames"),
        1,
    ),
    _entry(
        "audio",
        "Wav2Vec2ConformerModel",
        "Wav2Vec2ConformerConfig",
        {**_WAVE, "position_embeddings_type": "relative"},
        wave(400),
        1,
        input_gradients=False,
    ),
]

MULTIMODAL = [
    _entry("multimodal", "CLIPModel", "CLIPConfig", _CLIP, text_and_image(16), 2, representative=True),
    _entry("multimodal", "CLIPTextModel", "CLIPTextConfig", _CLIP_TEXT, text, 1),
    _entry(
        "multimodal",
        "SiglipModel",
        "SiglipConfig",
        {k: _CLIP[k] for k in ("text_config", "vision_config")},
        text_and_image(16),
        2,
        1,
    ),
    _entry(
        "multimodal",
        "ViltModel",
        "ViltConfig",
        {**_TEXT, "image_size": 16, "patch_size": 8},
        text_and_image(16),
        1,
        rung="modules",
    ),
    _entry(
        "multimodal",
        "BlipModel",
        "BlipConfig",
        {
            "text_config": {**_TEXT, "encoder_hidden_size": 32, "projection_dim": 16},
            "vision_config": {**_IMAGE, "projection_dim": 16},
            "projection_dim": 16,
        },
        text_and_image(16),
        2,
    ),
    _entry(
        "multimodal",
        "GitForCausalLM",
        "GitConfig",
        {**_TEXT, "vision_config": _IMAGE},
        text_and_image(16),
        2,
    ),
]

STATE_SPACE = [
    _entry(
        "state-space",
        "MambaForCausalLM",
        "MambaConfig",
        {**_TOKENS, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4, "time_step_rank": 2},
        ids,
        representative=True,
        lengths=(8, 8),
        unrolled=True,
    ),
    _entry(
        "state-space",
        "Mamba2ForCausalLM",
        "Mamba2Config",
        {
            **_TOKENS,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "state_size": 4,
            "head_dim": 8,
            "num_heads": 4,
            "n_groups": 1,
            "chunk_size": 4,
        },
        ids,
        lengths=(9, 11),  # an example of whole chunks gives a graph for whole chunks
    ),
    _entry(
        "state-space",
        "RwkvForCausalLM",
        "RwkvConfig",
        {**_TOKENS, "hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16, "context_length": 32},
        ids,
        lengths=(8, 8),
        unrolled=True,
    ),
    _entry(
        "state-space",
        "RecurrentGemmaForCausalLM",
        "RecurrentGemmaConfig",
        {**_GROUPED, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 16},
        text,
        1,
        rung="modules",
    ),
    _entry(
        "state-space",
        "JambaForCausalLM",
        "JambaConfig",
        {
            **_TEXT,
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "num_experts": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
            "mamba_d_state": 4,
            "mamba_dt_rank": 2,
        },
        text,
        1,
        lengths=(8, 8),
        unrolled=True,
    ),
]

EXPERTS = [
    _entry(
        "mixture of experts",
        "MixtralForCausalLM",
        "MixtralConfig",
        {**_GROUPED, **_EXPERTS},
        text,
        1,
        representative=True,
    ),
    _entry(
        "mixture of experts",
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {
            **_GROUPED,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
        text,
        1,
    ),
    _entry(
        "mixture of experts",
        "SwitchTransformersModel",
        "SwitchTransformersConfig",
        {**_T5, "num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
        pairs,
        2,
        1,
        rung="modules",
    ),
    _entry(
        "mixture of experts",
        "OlmoeForCausalLM",
        "OlmoeConfig",
        {**_TEXT, "num_experts": 4, "num_experts_per_tok": 2},
        text,
        1,
    ),
]

ENTRIES: list[Entry] = [
    *ENCODERS,
    *DECODERS,
    *ENCODER_DECODERS,
    *VISION,
    *AUDIO,
    *MULTIMODAL,
    *STATE_SPACE,
    *EXPERTS,
]
