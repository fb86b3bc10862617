"""Small random models of the KerasHub families, and data that fits them."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

VOCABULARY = 64
LENGTH = 8
IMAGE = 32


@dataclasses.dataclass(frozen=True)
class Sample:
    """One model of a family.

    Attributes:
        name: What tables call it.
        family: The family that it belongs to.
        make: Function that returns a new model with random weights.
        quick: Whether it belongs to the part that runs in CI.
    """

    name: str
    family: str
    make: Callable
    quick: bool = False


def hub():
    import keras_hub

    return keras_hub.models


# -- Text encoders ---------------------------------------------------------------------------------

_ENCODER = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}


def _encoder(name, **changes):
    settings = {**_ENCODER, "dropout": 0.1, "max_sequence_length": 2 * LENGTH, **changes}
    return getattr(hub(), f"{name}Backbone")(**settings)


def _albert():
    return _encoder("Albert", embedding_dim=8, dropout=0.0)


def _deberta():
    return _encoder("DebertaV3", bucket_size=4)


def _electra():
    settings = {k: v for k, v in _ENCODER.items() if k != "vocabulary_size"}
    return hub().ElectraBackbone(
        vocab_size=VOCABULARY, embedding_dim=8, max_sequence_length=2 * LENGTH, **settings
    )


def _f_net():
    settings = {k: v for k, v in _ENCODER.items() if k != "num_heads"}
    return hub().FNetBackbone(max_sequence_length=2 * LENGTH, **settings)


def _task(task, backbone, **arguments):
    def make():
        return getattr(hub(), task)(backbone(), preprocessor=None, **arguments)

    return make


def _classifier(task, backbone):
    return _task(task, backbone, num_classes=3)


def _plain(name):
    return lambda: _encoder(name)


# -- Language models -------------------------------------------------------------------------------

_DECODER = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 1,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
_GROUPED = {"num_query_heads": 4, "num_key_value_heads": 2}
_EXPERTS = {"num_experts": 4, "top_k": 2}


def _decoder(name, **arguments):
    return lambda: getattr(hub(), f"{name}Backbone")(**{**_DECODER, **arguments})


def _causal(name, **arguments):
    return lambda: getattr(hub(), f"{name}CausalLM")(
        backbone=_decoder(name, **arguments)(), preprocessor=None
    )


def _gemma3():
    return hub().Gemma3CausalLM(
        backbone=hub().Gemma3Backbone(image_size=16, head_dim=8, **_GROUPED, **_DECODER),
        preprocessor=None,
    )


def _seq2seq(name, **arguments):
    def make():
        backbone = getattr(hub(), f"{name}Backbone")(**{**_DECODER, "num_heads": 2, **arguments})
        return getattr(hub(), f"{name}Seq2SeqLM")(backbone, preprocessor=None)

    return make


def _whisper():
    return hub().WhisperBackbone(
        **_ENCODER, num_mels=8, max_encoder_sequence_length=16, max_decoder_sequence_length=LENGTH
    )


# -- Images ----------------------------------------------------------------------------------------


def _resnet(shape=(IMAGE, IMAGE, 3)):
    return hub().ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=shape,
    )


def _densenet():
    return hub().DenseNetBackbone(stackwise_num_repeats=[1, 1], growth_rate=4)


def _vgg():
    return hub().VGGBackbone(
        stackwise_num_repeats=[1, 1], stackwise_num_filters=[8, 8], image_shape=(IMAGE, IMAGE, 3)
    )


def _xception():
    return hub().XceptionBackbone(
        stackwise_conv_filters=[[8, 8], [16, 16]], stackwise_pooling=[True, False]
    )


def _cspnet():
    return hub().CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 1],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[8, 16],
        block_type="dark_block",
        stage_type="dark",
        image_shape=(IMAGE, IMAGE, 3),
    )


def _efficientnet():
    return hub().EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 3,
        stackwise_depth_coefficients=[1.0] * 3,
        stackwise_kernel_sizes=[3] * 3,
        stackwise_num_repeats=[1] * 3,
        stackwise_input_filters=[8, 8, 8],
        stackwise_output_filters=[8, 8, 16],
        stackwise_expansion_ratios=[1, 2, 2],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.25, 0.25],
        stackwise_strides=[1, 2, 2],
        stackwise_block_types=["fused", "unfused", "unfused"],
        stackwise_force_input_filters=[0] * 3,
        stackwise_nores_option=[False] * 3,
    )


def _mobilenet():
    return hub().MobileNetBackbone(
        stackwise_expansion=[[8], [16]],
        stackwise_num_blocks=[1, 1],
        stackwise_num_filters=[[8], [8]],
        stackwise_kernel_size=[[3], [3]],
        stackwise_num_strides=[[2], [1]],
        stackwise_se_ratio=[[None], [0.25]],
        stackwise_activation=[["relu"], ["hard_swish"]],
        stackwise_padding=[[1], [1]],
        output_num_filters=16,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=16,
        squeeze_and_excite=0.5,
        image_shape=(IMAGE, IMAGE, 3),
    )


def _vit():
    return hub().ViTBackbone(
        image_shape=(IMAGE, IMAGE, 3),
        patch_size=16,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
    )


def _deit():
    return hub().DeiTBackbone(
        image_shape=(IMAGE, IMAGE, 3),
        patch_size=16,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    )


def _swin():
    return hub().SwinTransformerBackbone(
        image_shape=(IMAGE, IMAGE, 3),
        embed_dim=8,
        depths=[1, 1],
        num_heads=[1, 2],
        window_size=4,
    )


def _mit():
    return hub().MiTBackbone(
        layerwise_depths=[1, 1, 1, 1],
        num_layers=4,
        layerwise_num_heads=[1, 1, 2, 2],
        layerwise_sr_ratios=[2, 2, 1, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        image_shape=(2 * IMAGE, 2 * IMAGE, 3),
        hidden_dims=[8, 16, 24, 32],
    )


def _segformer():
    backbone = hub().SegFormerBackbone(image_encoder=_mit(), projection_filters=8)
    return hub().SegFormerImageSegmenter(backbone=backbone, num_classes=3, preprocessor=None)


def _deeplab():
    backbone = hub().DeepLabV3Backbone(
        image_encoder=_resnet(),
        spatial_pyramid_pooling_key="P3",
        upsampling_size=8,
        dilation_rates=[2, 4],
        projection_filters=8,
        image_shape=(IMAGE, IMAGE, 3),
    )
    return hub().DeepLabV3ImageSegmenter(backbone=backbone, num_classes=3, preprocessor=None)


def _sam():
    import keras_hub

    backbone = hub().SAMBackbone(
        image_encoder=hub().ViTDetBackbone(
            hidden_size=16,
            num_layers=2,
            intermediate_dim=32,
            num_heads=2,
            global_attention_layer_indices=[1],
            patch_size=16,
            num_output_channels=8,
            window_size=2,
            image_shape=(2 * IMAGE, 2 * IMAGE, 3),
        ),
        prompt_encoder=keras_hub.layers.SAMPromptEncoder(
            hidden_size=8,
            image_embedding_size=(4, 4),
            input_image_size=(2 * IMAGE, 2 * IMAGE),
            mask_in_channels=16,
        ),
        mask_decoder=keras_hub.layers.SAMMaskDecoder(
            num_layers=1,
            hidden_size=8,
            intermediate_dim=16,
            num_heads=2,
            embedding_dim=8,
            num_multimask_outputs=3,
            iou_head_depth=2,
            iou_head_hidden_dim=8,
        ),
    )
    return hub().SAMImageSegmenter(backbone=backbone, preprocessor=None)


def _clip():
    parts = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "intermediate_dim": 32}
    return hub().CLIPBackbone(
        vision_encoder=hub().CLIPVisionEncoder(
            patch_size=16, image_shape=(IMAGE, IMAGE, 3), **parts
        ),
        text_encoder=hub().CLIPTextEncoder(
            vocabulary_size=VOCABULARY, embedding_dim=16, max_sequence_length=LENGTH, **parts
        ),
        projection_dim=16,
    )


def _vae():
    # KerasHub exports no name for it.
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    return VAEBackbone(
        encoder_num_filters=[32, 32],
        encoder_num_blocks=[1, 1],
        decoder_num_filters=[32, 32],
        decoder_num_blocks=[1, 1],
        sampler_method="mode",
    )


def _image(task, backbone, **arguments):
    return _task(task, backbone, num_classes=3, **arguments)


SAMPLES = [
    Sample("ALBERT classifier", "ALBERT", _classifier("AlbertTextClassifier", _albert)),
    Sample("ALBERT masked", "ALBERT", _task("AlbertMaskedLM", _albert), quick=True),
    Sample("BERT classifier", "BERT", _classifier("BertTextClassifier", _plain("Bert")), True),
    Sample("BERT masked", "BERT", _task("BertMaskedLM", _plain("Bert")), quick=True),
    Sample("DeBERTa classifier", "DeBERTa", _classifier("DebertaV3TextClassifier", _deberta)),
    Sample("DeBERTa masked", "DeBERTa", _task("DebertaV3MaskedLM", _deberta)),
    Sample(
        "DistilBERT classifier",
        "DistilBERT",
        _classifier("DistilBertTextClassifier", _plain("DistilBert")),
    ),
    Sample("DistilBERT masked", "DistilBERT", _task("DistilBertMaskedLM", _plain("DistilBert"))),
    Sample(
        "RoBERTa classifier", "RoBERTa", _classifier("RobertaTextClassifier", _plain("Roberta"))
    ),
    Sample("RoBERTa masked", "RoBERTa", _task("RobertaMaskedLM", _plain("Roberta"))),
    Sample(
        "XLM-RoBERTa classifier",
        "XLM-RoBERTa",
        _classifier("XLMRobertaTextClassifier", _plain("XLMRoberta")),
    ),
    Sample("ELECTRA", "ELECTRA", _electra),
    Sample("F-Net classifier", "F-Net", _classifier("FNetTextClassifier", _f_net)),
    Sample("GPT-2", "GPT-2", _causal("GPT2", num_heads=2, max_sequence_length=16), True),
    Sample("Bloom", "Bloom", _causal("Bloom", num_heads=2)),
    Sample("Falcon", "Falcon", _causal("Falcon", num_attention_heads=2)),
    Sample("Gemma", "Gemma", _causal("Gemma", head_dim=8, **_GROUPED), True),
    Sample("Gemma3", "Gemma3", _gemma3),
    Sample("GPT-NeoX", "GPT-NeoX", _causal("GPTNeoX", num_heads=2)),
    Sample("Llama", "Llama", _causal("Llama", **_GROUPED)),
    Sample("Llama3", "Llama3", _causal("Llama3", **_GROUPED), True),
    Sample("Mistral", "Mistral", _causal("Mistral", **_GROUPED)),
    Sample("OPT", "OPT", _causal("OPT", num_heads=2, max_sequence_length=16), True),
    Sample("Phi3", "Phi3", _causal("Phi3", **_GROUPED)),
    Sample("Qwen", "Qwen", _causal("Qwen", **_GROUPED)),
    Sample("Qwen3", "Qwen3", _causal("Qwen3", head_dim=8, **_GROUPED), True),
    Sample("Mixtral", "Mixtral", _causal("Mixtral", **_GROUPED, **_EXPERTS), True),
    Sample(
        "Qwen-MoE",
        "Qwen-MoE",
        _causal(
            "QwenMoe",
            moe_intermediate_dim=16,
            shared_expert_intermediate_dim=16,
            **_GROUPED,
            **_EXPERTS,
        ),
    ),
    Sample(
        "Qwen3-MoE",
        "Qwen3-MoE",
        _causal("Qwen3Moe", moe_intermediate_dim=16, head_dim=8, **_GROUPED, **_EXPERTS),
    ),
    Sample("GPT-OSS", "GPT-OSS", _causal("GptOss", **_GROUPED, **_EXPERTS), True),
    Sample("BART", "BART", _seq2seq("Bart", max_sequence_length=16), True),
    Sample("T5", "T5", _seq2seq("T5")),
    Sample("Whisper", "Whisper", _whisper),
    Sample("ResNet classifier", "ResNet", _image("ResNetImageClassifier", _resnet), True),
    Sample("DenseNet classifier", "DenseNet", _image("DenseNetImageClassifier", _densenet)),
    Sample("VGG classifier", "VGG", _image("VGGImageClassifier", _vgg, pooling_hidden_dim=16)),
    Sample("Xception classifier", "Xception", _image("XceptionImageClassifier", _xception)),
    Sample("CSPNet classifier", "CSPNet", _image("CSPNetImageClassifier", _cspnet)),
    Sample(
        "EfficientNet classifier",
        "EfficientNet",
        _image("EfficientNetImageClassifier", _efficientnet),
        True,
    ),
    Sample(
        "MobileNet classifier",
        "MobileNet",
        _image("MobileNetImageClassifier", _mobilenet, num_features=16),
    ),
    Sample("ViT classifier", "ViT", _image("ViTImageClassifier", _vit), True),
    Sample("DeiT classifier", "DeiT", _image("DeiTImageClassifier", _deit)),
    Sample("Swin classifier", "Swin", _image("SwinTransformerImageClassifier", _swin), True),
    Sample("SegFormer", "SegFormer", _segformer),
    Sample("DeepLabV3", "DeepLabV3", _deeplab),
    Sample("SAM", "SAM", _sam, quick=True),
    Sample("CLIP", "CLIP", _clip),
    Sample("VAE", "VAE", _vae),
]


# -- Data ------------------------------------------------------------------------------------------


def inputs_for(model, batch=4, seed=0):
    """Random inputs in the structure that a model takes; the last position is padding."""
    random = np.random.default_rng(seed)
    if isinstance(model.input, dict):
        return {name: _input(name, spec, batch, random) for name, spec in model.input.items()}
    return keras.tree.map_structure(lambda spec: _input("", spec, batch, random), model.input)


def _input(name, spec, batch, random):
    if name == "masks":
        # SAM takes masks, or none.
        return np.zeros((batch, 0, 16, 16, 1), "float32")
    if name in ("points", "labels", "boxes"):
        shape = {"points": (1, 2), "labels": (1,), "boxes": (1, 2, 2)}[name]
        return np.ones((batch, *shape), "float32")
    sizes = [size or (IMAGE if len(spec.shape) == 4 else LENGTH) for size in spec.shape[1:]]
    shape = (batch, *sizes)
    dtype = keras.backend.standardize_dtype(spec.dtype)
    if "padding_mask" in name:
        mask = np.ones(shape, dtype)
        mask[:, -1:] = 0
        return mask
    if "segment" in name:
        return np.zeros(shape, dtype)
    if "mask_positions" in name:
        return random.integers(0, LENGTH - 1, (batch, 2)).astype(dtype)
    if "int" in dtype:
        return random.integers(1, VOCABULARY, shape).astype(dtype)
    return random.normal(size=shape).astype(dtype)


def targets_for(model, inputs, seed=1):
    """`(loss, targets)` that fit what a model gives: whole numbers where it classifies."""
    random = np.random.default_rng(seed)
    outputs = keras.tree.map_structure(keras.ops.convert_to_numpy, model(inputs, training=False))
    if isinstance(outputs, dict):
        return "mse", {
            name: random.normal(size=array.shape).astype(array.dtype)
            for name, array in outputs.items()
        }
    if isinstance(outputs, (list, tuple)):
        return ["mse"] * len(outputs), [
            random.normal(size=array.shape).astype(array.dtype) for array in outputs
        ]
    if type(model).__name__.endswith("ImageSegmenter"):
        classes = random.integers(0, outputs.shape[-1], outputs.shape[:-1])
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        return loss, np.eye(outputs.shape[-1], dtype="float32")[classes]
    if type(model).__name__.endswith(("Classifier", "LM")):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return loss, random.integers(0, outputs.shape[-1], outputs.shape[:-1])
    return "mse", random.normal(size=outputs.shape).astype(outputs.dtype)


def generates(model):
    return hasattr(model, "generate")


def generated(model, batch=2, seed=2):
    """Returns the tokens that a language model generates after random prompts."""
    random = np.random.default_rng(seed)

    def prompt():
        tokens = np.zeros((batch, LENGTH), "int32")
        tokens[:, :3] = random.integers(1, VOCABULARY, (batch, 3))
        return tokens, tokens != 0

    names = ["encoder_", "decoder_"] if "encoder_token_ids" in model.input else [""]
    inputs = {}
    for name in names:
        inputs[f"{name}token_ids"], inputs[f"{name}padding_mask"] = prompt()
    model.compile(sampler="greedy", optimizer="adam", loss="mse")
    if "Gemma3" in type(model).__name__:
        # Without a preprocessor, its generate() cannot put together that there are no images.
        inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
        found = model.make_generate_function()(inputs, stop_token_ids=None)
    else:
        found = model.generate(inputs, stop_token_ids=None)
    name = "decoder_token_ids" if "decoder_token_ids" in found else "token_ids"
    return np.asarray(keras.ops.convert_to_numpy(found[name]))
