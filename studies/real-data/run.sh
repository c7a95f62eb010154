#!/bin/sh
# The study of real radiographs, from the images to the report page. Run it again after an interruption: it goes on.
#
#   sh studies/real-data/run.sh DATA STORE
#
# DATA   a folder with nih-cxr14-64px/ and hannover-covid19/, each with records.csv and images/
# STORE  where the store is to be
set -eu
here=$(dirname "$0")
nih=$1/nih-cxr14-64px/records.csv
hannover=$1/hannover-covid19/records.csv
export RADFS_STORE="$2"

table() { # NAME DATASET RECORDS LABEL [OPTIONS]: the images of a data set are embedded once for all its labels
    name=$1; dataset=$2; records=$3; label=$4; shift 4
    radfs cohort build table "$name" --dataset "$dataset" --records "$records" --label-col "$label" \
        --image-col file --text-col rendered_text --subject-col patient_id --sex-col sex --age-col age "$@"
}

nih_licence="NIH Clinical Center terms: no restriction on use, attribution required"
table nih-abnormal nih "$nih" abnormal --id-col id --view-col view --licence "$nih_licence"
table nih-next-abnormal nih "$nih" next_abnormal --id-col id --view-col view --licence "$nih_licence"
table nih-age nih "$nih" age --bins 5 --id-col id --view-col view --licence "$nih_licence"
table hannover-icu hannover "$hannover" in_icu_at_image --id-col image_id --view-col projection --folds 5 --licence "CC BY 3.0"

radfs extract --backbone efficientnet-lite0,minilm
radfs train --grid "$here/hannover.toml"
radfs train --grid "$here/nih.toml"

for grid in hannover nih; do
    radfs compare --grid "$here/$grid.toml"
done
radfs report --out "$RADFS_STORE/report.html"
