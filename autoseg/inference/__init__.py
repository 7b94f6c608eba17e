"""From an image to a label map. A case passes through the files in this order:

prediction         reads the image, writes the files of the case
ensemble           every member's logits of the image, and the merged label map
trained_model      preprocessed image (and first stage) to logits on the configuration's grid
volume_predictor   the candidate region; from here on the same in validation
predictor          the sliding window: network_input, tiling, mirroring, patch_aggregator
memory_limit       with a limit of memory: large arrays in files; what is needed at the least: memory_need
export             logits to the file's grid: grid, winners; of many averages at once: averages
apply_selection    calibrated, merged organ by organ (merge_labels), postprocessing
prediction_files   probabilities and uncertainty maps beside the label map
"""

if __name__ != "autoseg.inference":
    raise ImportError("import autoseg.inference, not inference: the link at the top of the project is for readers only")
