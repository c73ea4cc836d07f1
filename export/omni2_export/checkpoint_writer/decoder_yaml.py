"""The decoder's `cosyvoice.yaml`, as the original writes it, tags and references included (spec §1.4)."""

from __future__ import annotations

from omni2_export.checkpoint_writer.dimensions import Dimensions

TEMPLATE = """\
# A decoder of the CosyVoice2 kind.
__set_seed1: !apply:random.seed [1986]
__set_seed2: !apply:numpy.random.seed [1986]
__set_seed3: !apply:torch.manual_seed [1986]
__set_seed4: !apply:torch.cuda.manual_seed_all [1986]

sample_rate: {vocoder.sample_rate}
spk_embed_dim: {estimator.speaker}
qwen_pretrain_path: ''

flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
    input_size: {encoder.width}
    output_size: {encoder.mel}
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: {encoder.units}
    input_frame_rate: {encoder.unit_rate}
    only_mask_loss: True
    token_mel_ratio: {encoder.ratio}
    pre_lookahead_len: {encoder.lookahead}
    encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
        output_size: {encoder.width}
        attention_heads: {encoder.heads}
        linear_units: {encoder.ffn}
        num_blocks: {encoder.blocks}
        dropout_rate: 0.1
        positional_dropout_rate: 0.1
        attention_dropout_rate: 0.1
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        input_size: {encoder.width}
        use_cnn_module: False
        macaron_style: False
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: {solver_channels}
        n_spks: 1
        spk_emb_dim: {encoder.mel}
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: {estimator.guidance}
                reg_loss_type: 'l1'
        estimator: !new:cosyvoice.flow.decoder.ConditionalDecoder
            in_channels: {estimator.in_channels}
            out_channels: {estimator.mel}
            causal: True
            channels: [{estimator.width}]
            dropout: 0.0
            attention_head_dim: {estimator.head_dim}
            n_blocks: {estimator.transformers}
            num_mid_blocks: {estimator.mid_blocks}
            num_heads: {estimator.heads}
            act_fn: 'gelu'

hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: {vocoder.mel}
    base_channels: {vocoder.base}
    nb_harmonics: {vocoder.harmonics}
    sampling_rate: !ref <sample_rate>
    nsf_alpha: {vocoder.sine_amplitude}
    nsf_sigma: {vocoder.noise_sigma}
    nsf_voiced_threshold: {vocoder.voiced_threshold}
    upsample_rates: {rates}
    upsample_kernel_sizes: {kernels}
    istft_params:
        n_fft: {vocoder.fft}
        hop_len: {vocoder.fft_hop}
    resblock_kernel_sizes: {resblock_kernels}
    resblock_dilation_sizes: {resblock_dilations}
    source_resblock_kernel_sizes: {source_kernels}
    source_resblock_dilation_sizes: {source_dilations}
    lrelu_slope: {vocoder.leaky_slope}
    audio_limit: {vocoder.audio_limit}
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        num_class: 1
        in_channels: {vocoder.mel}
        cond_channels: {vocoder.f0_width}
"""


def decoder_yaml(d: Dimensions) -> str:
    """The file's text for these dimensions."""
    v = d.vocoder
    return TEMPLATE.format(
        encoder=d.flow_encoder,
        estimator=d.estimator,
        vocoder=v,
        solver_channels=3 * d.flow_encoder.mel,
        rates=list(v.upsample_rates),
        kernels=list(v.upsample_kernels),
        resblock_kernels=list(v.resblock_kernels),
        resblock_dilations=[list(dilations) for dilations in v.resblock_dilations],
        source_kernels=list(v.source_kernels),
        source_dilations=[list(dilations) for dilations in v.source_dilations],
    )
