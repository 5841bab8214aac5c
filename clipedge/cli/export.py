"""clipedge export [MODEL] --precision int8 --output DIR"""

from __future__ import annotations

import argparse

from clipedge.cli import fail, print_json
from clipedge.cli.options import add_label_options, add_model_options, labels_from, workstation_packages
from clipedge.errors import GateError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        help="folder or file of a CLIP, or owner/name on a hub (default: the demonstration checkpoint)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the bundle's folder; replaced if it is one")
    parser.add_argument(
        "--precision",
        default="int8",
        metavar="P[,P]",
        help="fp32, fp16 (for GPUs), int8, fp8 (for NVIDIA's Ada and later, by --quantizer modelopt), several "
        "(int8,fp16), or auto: the fastest on this device that passes its proof (default: int8)",
    )
    parser.add_argument(
        "--target",
        default="x86",
        metavar="T[,T]",
        help="for what INT8 is made: x86, arm, tensorrt (NVIDIA GPUs), or several: x86,arm (default: x86)",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="zero-shot accuracy that INT8 may cost (default: 1 point); layers stay in float until that holds",
    )
    parser.add_argument(
        "--finish",
        type=int,
        default=0,
        metavar="STEPS",
        help="train INT8 for so many steps to give the float model's embeddings, where it loses points (such as: 300)",
    )
    parser.add_argument(
        "--calibration-cache", metavar="FILE", help="keep the calibration in this file; read it from there if it exists"
    )
    parser.add_argument(
        "--calibration-data",
        metavar="DATA",
        help="pictures like the camera's: a folder, a list of paths (.txt), a webdataset (.tar); or: scenes",
    )
    parser.add_argument(
        "--layout",
        default="bundle",
        metavar="L",
        help="bundle, or huggingface: a folder in the hub's conventions for other tools (default: bundle)",
    )
    parser.add_argument(
        "--quantizer",
        default="clipedge",
        metavar="Q",
        help="clipedge, or modelopt: NVIDIA's Model Optimizer, for int8 and fp8 with --target tensorrt (default: "
        "clipedge)",
    )
    add_label_options(parser)
    add_model_options(parser)
    parser.add_argument(
        "--dense", action="store_true", help="add a graph of the pictures' patches, for heatmaps: clipedge explain"
    )
    parser.add_argument(
        "--int8-attention", action="store_true", help="for --target tensorrt: attention's products in INT8, too"
    )
    parser.add_argument("--no-text", action="store_true", help="leave the text tower out; prompt banks still work")


def run(arguments: argparse.Namespace) -> int:
    with workstation_packages("export"):
        from clipedge.export.pipeline import export
        from clipedge.export.report import report_lines
    try:
        report = export(
            arguments.model,
            arguments.output,
            precision=arguments.precision.split(","),
            target=arguments.target.split(","),
            calibration_data=arguments.calibration_data,
            labels=labels_from(arguments.labels),
            templates=arguments.template,
            text=not arguments.no_text,
            arch=arguments.arch,
            tokenizer=arguments.tokenizer,
            revision=arguments.revision,
            max_drop=arguments.max_drop,
            calibration_cache=arguments.calibration_cache,
            layout=arguments.layout,
            dense=arguments.dense,
            quantizer=arguments.quantizer,
            int8_attention=arguments.int8_attention,
            finish=arguments.finish,
        )
    except GateError as error:
        if arguments.json:
            print_json(error.report.to_dict())
        else:
            print("\n".join(report_lines(error.report)))
        return fail(f"below the gate, no bundle written: {error}", error.exit_code)
    except OSError as error:  # a full disk, say
        place = f" ({error.filename})" if error.filename else ""
        return fail(f"{error.strerror or error}{place}; what was at {arguments.output} is unchanged", 1)
    if arguments.json:
        print_json(report.to_dict())
    else:
        print("\n".join(report_lines(report)))
        print(f"\n  {'bundle' if arguments.layout == 'bundle' else 'folder'}: {arguments.output}")
    return 0
